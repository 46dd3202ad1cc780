"""Systems on chips: TOML files in `targets/soc`, each what a delegate may do on one chip."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilepack.errors import UsageError, near_misses
from mobilepack.toml_file import read_toml

Hexagon = Literal[68, 69, 73, 75, 79, 81]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), strict=True)


class Phone(_Table):
    """A product with the chip.

    Attributes:
        name: As it is sold.
        source: Page that says so.
    """

    name: str = Field(min_length=3)
    source: str = Field(pattern="^https://")


class SocFile(_Table):
    """What a file says of a chip.

    Attributes:
        title: The name it is sold under.
        kind: What it is built into.
        hexagon: Version of its NPU; stub and skel of a QNN runtime carry it in their names.
        vtcm_mb: Fast memory beside the NPU, MiB.
        fp16: Whether the NPU computes in half precision.
        block_quantisation: Whether 4-bit weights may have a scale per block (LPBQ; V69 and later).
        weight_sharing: Whether methods of a program may share weights (V73 and later).
        matmul_16x16: Whether both operands of a matrix product may have 16 bits (V73 and later).
        context_limit_gb: Largest context of the NPU, GB.
        memory_gb_per_s: Peak bandwidth of the main memory, GB/s; absent where unpublished.
        memory_source: Page or calculation that says so.
        phones: Products with the chip.
    """

    title: str = Field(min_length=3)
    kind: Literal["phone", "watch", "headset", "car", "pc", "industrial"]
    hexagon: Hexagon
    vtcm_mb: int = Field(ge=1, le=64)
    fp16: bool
    block_quantisation: bool
    weight_sharing: bool
    matmul_16x16: bool
    context_limit_gb: float = Field(gt=0)
    memory_gb_per_s: float | None = None
    memory_source: str = ""
    phones: tuple[Phone, ...] = Field(default=(), strict=False)


class Soc(SocFile):
    """A file and the name that its stem gives the chip, as `ro.soc.model` of a phone has it."""

    model: str


def socs_folder() -> Path:
    """Return the folder of the chips' files: packaged, or `targets/soc` of a source checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "_targets" / "soc"
    return packaged if packaged.is_dir() else package.parent / "targets" / "soc"


def soc_models() -> tuple[str, ...]:
    """Return the names of all chips, sorted."""
    return tuple(sorted(path.stem for path in socs_folder().glob("*.toml")))


def load_soc(model: str) -> Soc:
    """Read a chip's file by its name, in either case; a suffix (`SM8650-AB`) does not count.

    Raises:
        UsageError: No such chip, or its file breaks the schema (all problems at once).
    """
    known = soc_models()
    name = model.strip().upper()
    found = name if name in known else name.partition("-")[0]
    if found not in known:
        raise UsageError(
            "unknown-soc",
            f"there is no SoC {model!r} that QNN programs can be built for",
            why=_near(name, known),
            next="on the phone, `getprop ro.soc.model` says its name; docs/targets/qnn.md has the"
            " list",
        )
    path = socs_folder() / f"{found}.toml"

    def refused(err: Exception) -> UsageError:
        return UsageError(
            "invalid-soc",
            f"{path} does not describe a SoC",
            why=str(err),
            next="correct the file; targets/README.md lists the keys",
        )

    data = read_toml(path, refused)
    try:
        return Soc.model_validate({**data, "model": found})
    except ValidationError as err:
        raise refused(err) from err


def _near(name: str, known: tuple[str, ...]) -> str:
    """Return near misses of a chip's number or of the name it is sold under."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        titles = (f"{model!r} ({load_soc(model).title})" for model in close)
        return "did you mean " + " or ".join(titles) + "?"
    titled = {load_soc(model).title.upper(): model for model in known}
    close = difflib.get_close_matches(name, titled, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"{titled[c]!r} ({c.title()})" for c in close) + "?"
    return near_misses(name, list(known))
