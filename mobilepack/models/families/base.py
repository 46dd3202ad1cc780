"""What a family is: a reader of its config.json, and a table of its tensor names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mobilepack.models.config import ConfigReader, JsonObject
from mobilepack.models.families.harmless import HARMLESS
from mobilepack.models.families.names import Names, named_sources
from mobilepack.models.layer_spec import Activation
from mobilepack.models.spec import DecoderSpec, TensorSource

# transformers 5.23 activations.py: the same function under several names.
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "relu": "relu",
    "relu2": "relu2",
    "relu_squared": "relu2",
}


class Family(Protocol):
    """How one family's config.json and tensor names map onto the decoder."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """Values of `model_type` that this family reads."""
        ...

    def read(self, config: JsonObject, file: str = "config.json") -> DecoderSpec:
        """Return the decoder that a config describes; `file` is how errors call it.

        Raises:
            UsageError: The config is wrong; all its problems at once.
        """
        ...

    def sources(self, spec: DecoderSpec) -> dict[str, TensorSource]:
        """Return where every parameter of `parameter_shapes(spec)` lies in a checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class ConfiguredFamily:
    """A family given by a function and a table.

    Attributes:
        describe: Reads a config and returns the decoder; problems stay with the reader.
        names: Where the tensors of each of the decoder's modules lie.
        renamed: Other ways to begin the keys of tensors, (usual, other), that files of this family
            are found with; all of one tuple go together.
        ignored: Tensors that are no part of the decoder (a vision tower).
        harmless: Keys of this family's configs that change nothing, beside those of `harmless.py`.
    """

    model_types: tuple[str, ...]
    describe: Callable[[ConfigReader], DecoderSpec]
    names: Names | Callable[[DecoderSpec], Names]
    renamed: tuple[tuple[tuple[str, str], ...], ...] = ()
    ignored: re.Pattern[str] | None = None
    harmless: str = ""
    _pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        """Join the keys that do not matter."""
        own = f"|{self.harmless}" if self.harmless else ""
        object.__setattr__(self, "_pattern", re.compile(HARMLESS.pattern + own))

    def read(self, config: JsonObject, file: str = "config.json") -> DecoderSpec:
        """Return the decoder that a config describes."""
        reader = ConfigReader(config, file)
        reader.fixed("is_encoder_decoder", False)
        reader.fixed("add_cross_attention", False)
        spec = self.describe(reader)
        reader.finish(self._pattern)
        return spec

    def sources(self, spec: DecoderSpec) -> dict[str, TensorSource]:
        """Return where every parameter lies in a checkpoint with this family's names."""
        names = self.names(spec) if callable(self.names) else self.names
        return named_sources(names, spec)
