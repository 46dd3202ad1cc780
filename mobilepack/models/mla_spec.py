"""What the decoder needs to know about multi-head latent attention."""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.models.layer_spec import RopeSpec, Shapes, linear_shapes


@dataclass(frozen=True, slots=True)
class LatentAttentionSpec:
    """Multi-head latent attention (arXiv 2405.04434, section 2.1), with its maps absorbed.

    Keys and values of all heads are linear in one latent per token. The heads' maps from it are
    moved to the queries and to the result, so that the cache holds the latent and one rotated key:
    an attention with one key-value head.

    Attributes:
        q_rank: Channels of the queries' own latent; None: queries come from the hidden state.
        kv_rank: Channels of the latent.
        plain_dim: Channels of a head's query and key that are not rotated.
        value_dim: Channels of a head's value.
        rope: How the others are rotated.
        scale: Factor on the scores.
        eps: Of the latents' norms.
        bias: Whether the maps to the latents have one.
    """

    n_heads: int
    q_rank: int | None
    kv_rank: int
    plain_dim: int
    value_dim: int
    rope: RopeSpec
    scale: float
    eps: float
    bias: bool = False

    alibi = None
    window = None
    n_kv_heads = 1
    qkv_bias = False

    @property
    def head_dim(self) -> int:
        """Channels of a cached key: the latent and the rotated part."""
        return self.kv_rank + self.rope.dim

    @property
    def q_size(self) -> int:
        """Channels of all absorbed query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Channels of a cached key (or value)."""
        return self.head_dim

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters; `k_up` and `v_up` are matrices per head, head after head."""
        shapes: Shapes = {}
        before = hidden
        if self.q_rank is not None:
            shapes |= linear_shapes("q_a", self.q_rank, hidden, self.bias)
            shapes["q_a_norm.weight"] = (self.q_rank,)
            before = self.q_rank
        shapes |= linear_shapes("q_plain", self.n_heads * self.plain_dim, before, False)
        shapes |= linear_shapes("q_turned", self.n_heads * self.rope.dim, before, False)
        shapes |= linear_shapes("kv_a", self.kv_rank, hidden, self.bias)
        shapes |= linear_shapes("k_turned", self.rope.dim, hidden, self.bias)
        shapes["kv_a_norm.weight"] = (self.kv_rank,)
        shapes |= linear_shapes("k_up", self.n_heads * self.plain_dim, self.kv_rank, False)
        shapes |= linear_shapes("v_up", self.n_heads * self.value_dim, self.kv_rank, False)
        return shapes | linear_shapes("o", hidden, self.n_heads * self.value_dim, self.bias)
