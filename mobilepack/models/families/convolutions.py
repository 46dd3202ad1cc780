"""Where convolutions along the tokens lie in checkpoints."""

from __future__ import annotations

from mobilepack.models.layer_spec import LayerSpec


def one_channel(name: str, layer: LayerSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how torch stores a convolution of each channel on its own: `[channels, 1, taps]`."""
    del name, layer
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape
