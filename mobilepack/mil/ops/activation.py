"""Activation functions (definitions: coremltools 9.0, ops/defs/iOS15/activation.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.mil.ops.registry import elementwise, operator

elementwise(
    {
        "relu": torch.relu,
        "relu6": functional.relu6,
        "sigmoid": torch.sigmoid,
        "silu": functional.silu,
        "softsign": functional.softsign,
    },
    ("x",),
    "activation",
)


@operator("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """Compute the Gaussian error linear unit, exactly or by one of two approximations."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@operator("softplus")
def softplus(x: Tensor) -> Tensor:
    """Compute ln(1 + exp(x)) without overflow."""
    return torch.logaddexp(x, torch.zeros((), dtype=x.dtype))


@operator("softplus_parametric")
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Compute alpha[c] * ln(1 + exp(beta[c] * x)) per channel (axis 1)."""
    return _per_channel(alpha, x) * softplus(_per_channel(beta, x) * x)


@operator("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """Scale negative elements by alpha[c], per channel (axis 1)."""
    return torch.where(x >= 0, x, x * _per_channel(alpha, x))


@operator("leaky_relu")
def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """Scale negative elements by alpha."""
    return torch.where(x >= 0, x, x * alpha)


@operator("elu")
def elu(x: Tensor, alpha: float) -> Tensor:
    """Replace negative elements by alpha * (exp(x) - 1)."""
    return torch.where(x >= 0, x, alpha * torch.expm1(x))


@operator("clamped_relu")
def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Compute min(x, beta), negative elements scaled by alpha first."""
    return torch.where(x >= 0, x, x * alpha).clamp(max=beta)


@operator("thresholded_relu")
def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """Keep elements of at least alpha, else 0."""
    return torch.where(x >= alpha, x, torch.zeros((), dtype=x.dtype))


@operator("linear_activation")
def linear_activation(x: Tensor, alpha: float, beta: float = 0.0) -> Tensor:
    """Compute alpha * x + beta."""
    return alpha * x + beta


@operator("scaled_tanh")
def scaled_tanh(x: Tensor, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    """Compute alpha * tanh(beta * x)."""
    return alpha * torch.tanh(beta * x)


@operator("sigmoid_hard")
def sigmoid_hard(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """Compute alpha * x + beta, limited to [0, 1]."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("softmax")
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Compute the softmax along an axis."""
    return torch.softmax(x, axis)


def _per_channel(vector: Tensor, x: Tensor) -> Tensor:
    return vector.reshape(-1, *[1] * (x.dim() - 2))
