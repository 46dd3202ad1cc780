"""Composite operators of mixers with a state, each with a plain torch definition.

Like `ops.py`. A state is a buffer that lives from call to call; position 0 starts a new sequence,
so every operator begins with zeros there, whatever the buffer holds.
"""

from __future__ import annotations

import torch


def _fresh(state: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(state) if int(input_pos[0]) == 0 else state


@torch.library.custom_op("mobilepack::causal_conv", mutates_args=("state",))
def causal_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    state: torch.Tensor,
    input_pos: torch.Tensor,
) -> torch.Tensor:
    """Convolve each channel with the tokens before it.

    Args:
        x: `[1, seq, channels]`.
        weight: `[channels, taps]`, the newest token last.
        bias: `[channels]`.
        state: `[1, taps - 1, channels]`, the last tokens of the call before.
        input_pos: int64 `[1]`, position of the first token.
    """
    window = torch.cat([_fresh(state, input_pos), x], 1)
    state.copy_(window[:, x.shape[1] :])
    channels = x.shape[-1]
    out = torch.nn.functional.conv1d(
        window.transpose(1, 2), weight.unsqueeze(1), bias, groups=channels
    )
    return out.transpose(1, 2).contiguous()


@causal_conv.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    state: torch.Tensor,
    input_pos: torch.Tensor,
) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::state_space", mutates_args=("state",))
def state_space(  # noqa: PLR0913  the operands of one equation
    x: torch.Tensor,
    dt: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    dt_bias: torch.Tensor,
    a_log: torch.Tensor,
    d: torch.Tensor,
    state: torch.Tensor,
    input_pos: torch.Tensor,
    low: float,
    high: float,
) -> torch.Tensor:
    """Run Mamba 2's recurrence token by token (arXiv 2405.21060, equation 1 with scalar A).

    state = exp(step * a) * state + step * x b^T; y = state c + d * x.

    Args:
        x: `[1, seq, heads * head_dim]`.
        dt: `[1, seq, heads]`; the step is softplus(dt + its bias), clamped to `low` and `high`.
        b: `[1, seq, groups * n]`; heads of one group share it.
        c: Like `b`.
        dt_bias: `[heads]`; so are the next two.
        a_log: log(-a).
        d: Of the way past the state.
        state: `[heads, head_dim, n]`.
        input_pos: int64 `[1]`, position of the first token.
        low: Of the step.
        high: Of the step.
    """
    heads, _, channels = state.shape
    step = torch.nn.functional.softplus(dt[0] + dt_bias).clamp(low, high)
    decay = torch.exp(step * -torch.exp(a_log))
    inputs = x[0].unflatten(-1, (heads, -1))
    groups = b.shape[-1] // channels
    b, c = (
        part[0].unflatten(-1, (groups, -1)).repeat_interleave(heads // groups, 1) for part in (b, c)
    )
    now, outputs = _fresh(state, input_pos), []
    for token in range(x.shape[1]):
        added = (step[token, :, None] * inputs[token]).unsqueeze(-1) * b[token].unsqueeze(1)
        now = decay[token, :, None, None] * now + added
        outputs.append((now @ c[token].unsqueeze(-1)).squeeze(-1) + d[:, None] * inputs[token])
    state.copy_(now)
    return torch.stack(outputs).flatten(1).unsqueeze(0)


@state_space.register_fake
def _(  # noqa: PLR0913
    x: torch.Tensor,
    dt: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    dt_bias: torch.Tensor,
    a_log: torch.Tensor,
    d: torch.Tensor,
    state: torch.Tensor,
    input_pos: torch.Tensor,
    low: float,
    high: float,
) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::rg_lru", mutates_args=("state",))
def rg_lru(
    x: torch.Tensor,
    input_gate: torch.Tensor,
    recurrent_gate: torch.Tensor,
    parameter: torch.Tensor,
    state: torch.Tensor,
    input_pos: torch.Tensor,
) -> torch.Tensor:
    """Run the real-gated linear recurrent unit (arXiv 2402.19427, equations 1 to 4).

    log a = -8 sigmoid(recurrent_gate) softplus(parameter);
    state = a * state + sqrt(1 - a^2) * sigmoid(input_gate) * x, the root being 1 at position 0.

    Args:
        x: `[1, seq, width]`; so are the gates.
        input_gate: Before its sigmoid.
        recurrent_gate: Likewise.
        parameter: `[width]`.
        state: `[1, 1, width]`.
        input_pos: int64 `[1]`, position of the first token.
    """
    log_a = -8.0 * recurrent_gate.sigmoid() * torch.nn.functional.softplus(parameter)
    scale = torch.sqrt(-torch.expm1(2 * log_a))
    if int(input_pos[0]) == 0:
        scale[:, 0] = 1.0
    added, decay = x * input_gate.sigmoid() * scale, log_a.exp()
    now, outputs = _fresh(state, input_pos), []
    for token in range(x.shape[1]):
        now = decay[:, token : token + 1] * now + added[:, token : token + 1]
        outputs.append(now)
    state.copy_(now)
    return torch.cat(outputs, 1)


@rg_lru.register_fake
def _(
    x: torch.Tensor,
    input_gate: torch.Tensor,
    recurrent_gate: torch.Tensor,
    parameter: torch.Tensor,
    state: torch.Tensor,
    input_pos: torch.Tensor,
) -> torch.Tensor:
    return torch.empty_like(x)
