"""Models converted with coremltools, as users convert them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.mil.single import coremltools


@contextmanager
def silent() -> Iterator[None]:
    """Keep coremltools' remarks about versions out of the tests."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def convert(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    *,
    system: str = "iOS18",
    half: bool = True,
    **options: Any,
) -> Any:
    """Convert a module through torch.export."""
    ct, _, _ = coremltools()
    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    with silent():
        exported = torch.export.export(module.eval().requires_grad_(False), example)
        return ct.convert(
            exported.run_decompositions({}),
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, system),
            compute_precision=precision,
            skip_model_load=True,
            **options,
        )


def save(model: Any, path: Path) -> Path:
    """Save a converted model."""
    with silent():
        model.save(str(path))
    return path
