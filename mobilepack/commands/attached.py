"""Which SoC the attached phone has, for targets that are compiled for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mobilepack.errors import UsageError
from mobilepack.soc import load_soc, soc_models

Names = Callable[[], Sequence[str]]


def attached_names() -> tuple[str, ...]:
    """Return what every phone that answers over adb calls its SoC; nothing without adb."""
    from mobilepack.commands.devices import devices

    phones = (found for found in devices().devices if found.kind == "phone")
    return tuple(one.facts.soc for one in phones if one.facts is not None and one.facts.soc)


def attached_soc(names: Names = attached_names) -> str | None:
    """Return the SoC of the attached phone, None if there is none that programs are compiled for.

    Raises:
        UsageError: Phones with different SoCs are attached.
    """
    known = set(soc_models())
    found = {name.upper().partition("-")[0] for name in names()} & known
    if len(found) > 1:
        listed = ", ".join(f"{model} ({load_soc(model).title})" for model in sorted(found))
        raise UsageError(
            "several-socs",
            "cannot tell which SoC to compile for",
            why=f"phones with {listed} are attached, and a program runs on one",
            next=f"name one: --soc-model {min(found)}",
        )
    return next(iter(found), None)
