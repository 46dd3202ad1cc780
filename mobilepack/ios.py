"""Levels of iOS: TOML files in `targets/ios`, each what Core ML takes from that version on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilepack.errors import UsageError
from mobilepack.toml_file import read_toml

WeightForm = Literal["fp16", "8w", "4w", "4p"]


class IosFile(BaseModel):
    """What a file says of a level.

    Attributes:
        title: The systems that have it.
        opset: Core ML's name of its operators.
        recipes: How linear layers may be stored for the Neural Engine.
        functions: Whether a package may hold several functions, which share its weights.
        states: Whether a program may keep tensors from call to call.
        weight_limit_mb: Most weights that an iPhone loads of one model, MB.
        source: Page that says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    title: str = Field(min_length=3)
    opset: Literal["CoreML7", "CoreML8", "CoreML9"]
    recipes: tuple[WeightForm, ...] = Field(min_length=1, strict=False)
    functions: bool
    states: bool
    weight_limit_mb: int = Field(ge=1)
    source: str = Field(pattern="^https://")


class Ios(IosFile):
    """A file and the version that its stem gives it."""

    version: int


def levels_folder() -> Path:
    """Return the folder of the levels' files: packaged, or of a source checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "_targets" / "ios"
    return packaged if packaged.is_dir() else package.parent / "targets" / "ios"


def ios_versions() -> tuple[int, ...]:
    """Return all levels, ascending."""
    return tuple(sorted(int(path.stem) for path in levels_folder().glob("*.toml")))


def load_ios(version: int) -> Ios:
    """Read a level's file.

    Raises:
        UsageError: There is none, or it breaks the schema (all problems at once).
    """
    known = ios_versions()
    if version not in known:
        raise UsageError(
            "unknown-ios",
            f"cannot build for iOS {version}",
            why=f"known are {', '.join(map(str, known))}; a package for one runs on later ones",
            next="choose the lowest version that your app supports",
        )
    path = levels_folder() / f"{version}.toml"

    def refused(err: Exception) -> UsageError:
        return UsageError(
            "invalid-ios",
            f"{path} does not describe a level of iOS",
            why=str(err),
            next="correct the file; targets/README.md lists the keys",
        )

    data = read_toml(path, refused)
    try:
        return Ios.model_validate({**data, "version": version})
    except ValidationError as err:
        raise refused(err) from err


def first_with(recipe: str) -> int | None:
    """Return the first version that stores linear layers so; None if none does."""
    return next((v for v in ios_versions() if recipe in load_ios(v).recipes), None)
