"""Normalisations; means and variances in fp32, rounded once at the end."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.mil.ops.registry import Ints, operator


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    return vector.reshape(1, -1, *[1] * (x.dim() - 2))


@operator("layer_norm")
def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Subtract the mean and divide by the standard deviation over `axes`, then scale and shift."""
    over = sorted(axis % x.dim() for axis in (range(x.dim()) if axes is None else axes))
    shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    centred = x - x.mean(over, keepdim=True)
    result = centred / torch.sqrt((centred * centred).mean(over, keepdim=True) + epsilon)
    if gamma is not None:
        result = result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


@operator("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise each channel (axis 1) with the statistics given."""
    result = (x - _channels(mean, x)) / torch.sqrt(_channels(variance, x) + epsilon)
    if gamma is not None:
        result = result * _channels(gamma, x)
    return result if beta is None else result + _channels(beta, x)


@operator("instance_norm")
def instance_norm(
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each example over its spatial axes."""
    over = list(range(2, x.dim()))
    centred = x - x.mean(over, keepdim=True)
    result = centred / torch.sqrt((centred * centred).mean(over, keepdim=True) + epsilon)
    if gamma is not None:
        result = result * _channels(gamma, x)
    return result if beta is None else result + _channels(beta, x)


@operator("l2_norm")
def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Divide by the root of the sum of squares over the last three axes, plus epsilon."""
    return x / torch.sqrt((x * x).sum((-3, -2, -1), keepdim=True) + epsilon)


@operator("local_response_norm")
def local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divide by a power of the squares of neighbouring channels."""
    return functional.local_response_norm(x, size, alpha, beta, k)
