"""Which models only the dynamic form and the fast lowering know."""

from __future__ import annotations

from mobilepack.errors import UsageError
from mobilepack.models.spec import DecoderSpec


def check_static(spec: DecoderSpec, target: str) -> None:
    """Refuse a model that has no static form.

    Raises:
        UsageError: A block has experts, a recurrent state or latent attention.
    """
    _check_plain(
        spec,
        UsageError(
            "static-family",
            f"cannot build a {spec.family} model for {target}",
            why="it has experts, recurrent states or latent attention, and this target is for"
            " attention and feed-forward blocks",
            next="build it for the CPU: --target xnnpack",
        ),
    )


def check_reference(spec: DecoderSpec) -> None:
    """Refuse a model that only the fast lowering knows.

    Raises:
        UsageError: A block has experts, a recurrent state or latent attention.
    """
    _check_plain(
        spec,
        UsageError(
            "reference-lowering-family",
            f"cannot lower a {spec.family} model with --lowering reference",
            why="ExecuTorch's own lowering serves as the check of attention and feed-forward; "
            "experts, recurrent states and latent attention have the fast lowering only",
            next="leave --lowering out",
        ),
    )


def _check_plain(spec: DecoderSpec, refusal: UsageError) -> None:
    if not spec.is_plain:
        raise refusal
