"""Targets: TOML files, each a class of phone, its delegate and what is asked of a package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mobilepack.errors import UsageError, near_misses
from mobilepack.toml_file import read_toml

BackendName = Literal["coreml", "onnx", "qnn", "xnnpack"]
Artefact = Literal["mlpackage", "pte"]


RECIPES: dict[BackendName, tuple[str, ...]] = {
    "coreml": ("fp16", "8w", "4w", "4p"),
    "onnx": ("fp32",),
    "qnn": ("fp16", "16a8w", "16a4w"),
    "xnnpack": ("fp32", "8da4w"),
}
"""What each delegate can do with linear layers."""

GROUP_SIZES = {"8da4w": (32, 64, 128), "4p": (8, 16)}
"""What `group_size` may be; 0 for every other recipe. Groups of 8 to 16 rows are what Core ML's
guide advises for tables on the Neural Engine."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), strict=True)


class RecipeDefaults(_Table):
    """The recipe that a build takes when the command line says nothing.

    Attributes:
        linear: Linear layers: `fp32`, or `8da4w` (dynamic int8 activations, int4 weights in
            groups) for XNNPACK; `fp16`, or `16a8w` or `16a4w` (16-bit activations, int8 or int4
            weights) for QNN; `fp16`, or `8w` or `4w` (fp16 activations, int8 or int4 weights with
            a scale per row) or `4p` (4-bit places in tables of 16 values) for Core ML;
            `fp32` for ONNX.
        group_size: Weights of a row that share one scale with `8da4w`, rows that share one table
            with `4p` (8 or 16); 0 otherwise.
        embedding: Embedding table: `fp32`, `8w` (int8, a scale per row) or `4w` (int4, groups
            of 32) for XNNPACK; `fp16`, or `16w` (16 bits, one scale) for QNN.
        kv_cache: Element type of the KV cache: `fp32`, `fp16` or `int8`.
    """

    linear: Literal["fp32", "8da4w", "fp16", "16a8w", "16a4w", "8w", "4w", "4p"]
    group_size: Literal[0, 8, 16, 32, 64, 128]
    embedding: Literal["fp32", "8w", "4w", "fp16", "16w"]
    kv_cache: Literal["fp32", "fp16", "int8"]

    @property
    def linear_text(self) -> str:
        """The linear layers in words: `8da4w group 32`, `16a4w`."""
        return f"{self.linear} group {self.group_size}" if self.group_size else self.linear

    @model_validator(mode="after")
    def _groups_fit_the_recipe(self) -> Self:
        if self.group_size not in GROUP_SIZES.get(self.linear, (0,)):
            raise ValueError(
                "group_size must be 32, 64 or 128 for linear = '8da4w', 8 or 16 for '4p', and 0"
                " otherwise"
            )
        return self


class Shape(_Table):
    """How long sequences get.

    Attributes:
        max_seq_len: Positions of the KV cache; a model made for fewer gets fewer.
        prefill_chunk: Longest run of tokens that one call of the program takes.
    """

    max_seq_len: int = Field(ge=2)
    prefill_chunk: int = Field(ge=1)

    @model_validator(mode="after")
    def _a_chunk_fits_the_cache(self) -> Self:
        if self.prefill_chunk > self.max_seq_len:
            raise ValueError("prefill_chunk must be at most max_seq_len")
        return self


class ParityBudget(_Table):
    """What a package may lose against eager fp32, quantisation included; a key left out judges not.

    Attributes:
        max_ppl_ratio: PPL(package) / PPL(eager fp32); broken when the whole 95 % interval lies
            above it.
        max_kl_mean: Mean KL divergence, nats.
        min_top1_agreement: Share of positions with the same most likely token.
        min_sqnr_db: Signal to quantisation noise of the logits.
    """

    max_ppl_ratio: float | None = Field(default=None, ge=1)
    max_kl_mean: float | None = Field(default=None, gt=0)
    min_top1_agreement: float | None = Field(default=None, gt=0, le=1)
    min_sqnr_db: float | None = None


class TargetFile(_Table):
    """What a target file says of a class of phone.

    Attributes:
        title: A few words for tables.
        description: Who wants this target, and what it leaves to others; full sentences.
        backend: The delegate that runs the program.
        runs_on: Where the package runs, one entry per platform.
        soc_model: The chip that programs are compiled for unless the command line says so, a file
            of `soc/`; for `qnn` only.
        ios: Least version of iOS that the program is for unless the command line says so, a file
            of `ios/`; for `coreml` only.
        artefact: What is written for `coreml`: a standalone `mlpackage`, or a `pte` with
            ExecuTorch's Core ML delegate.
        recipe: How weights, embedding and KV cache are stored unless the command line says so.
        shape: Sequence lengths unless the command line says so.
        parity: What `verify` lets a package lose.
    """

    title: str = Field(min_length=3)
    description: str = Field(min_length=20)
    backend: BackendName
    runs_on: tuple[str, ...] = Field(min_length=1, strict=False)
    soc_model: str | None = None
    ios: int | None = Field(default=None, ge=17)
    artefact: Artefact | None = None
    recipe: RecipeDefaults
    shape: Shape
    parity: ParityBudget = ParityBudget()

    @model_validator(mode="after")
    def _the_parts_fit_the_backend(self) -> Self:
        if (self.backend == "qnn") != (self.soc_model is not None):
            raise ValueError("soc_model belongs to backend = 'qnn', which needs it")
        if (self.backend == "coreml") != (self.ios is not None):
            raise ValueError("ios belongs to backend = 'coreml', which needs it")
        if (self.backend == "coreml") != (self.artefact is not None):
            raise ValueError("artefact belongs to backend = 'coreml', which needs it")
        if self.recipe.linear not in RECIPES[self.backend]:
            allowed = " or ".join(repr(name) for name in RECIPES[self.backend])
            raise ValueError(f"linear must be {allowed} for backend = {self.backend!r}")
        return self


class Target(TargetFile):
    """A target file and the name that its stem gives it."""

    name: str


def targets_folder() -> Path:
    """Return the folder of the target files: packaged, or `targets/` of a source checkout.

    Raises:
        UsageError: Neither folder is there: the installation lacks files.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_targets", package.parent / "targets"):
        if any(folder.glob("*.toml")):
            return folder
    raise UsageError(
        "no-targets",
        "cannot find the target files",
        why=f"there is no *.toml in {package / '_targets'} or {package.parent / 'targets'}",
        next="install mobilepack again",
    )


def target_names() -> tuple[str, ...]:
    """Return the names of all shipped targets, sorted."""
    return tuple(sorted(path.stem for path in targets_folder().glob("*.toml")))


def load_target(name: str) -> Target:
    """Read a shipped target by its name, or any file by a path that ends in `.toml`.

    Raises:
        UsageError: No such target, or its file breaks the schema (all problems at once).
    """
    if name.endswith(".toml"):
        return read_target(Path(name))
    if name not in target_names():
        raise UsageError(
            "unknown-target",
            f"there is no target {name!r}",
            why=near_misses(name, list(target_names())),
            next="run `mobilepack targets` for the list, or give the path of a .toml file",
        )
    return read_target(targets_folder() / f"{name}.toml")


def read_target(path: Path) -> Target:
    """Read one target file.

    Raises:
        UsageError: The file cannot be read, is not TOML, or breaks the schema; every problem is
            named, with the near miss of a misspelt key.
    """

    def unreadable(err: Exception) -> UsageError:
        return UsageError(
            "unreadable-target",
            f"cannot read the target file {path}",
            why=str(err),
            next="correct the file; targets/README.md lists the keys",
        )

    data = read_toml(path, unreadable)
    try:
        TargetFile.model_validate(data)
    except ValidationError as err:
        raise UsageError(
            "invalid-target",
            f"{path} is not a valid target",
            why="; ".join(_problem(item) for item in err.errors(include_url=False)),
            next="correct the keys named; targets/README.md lists them all",
        ) from err
    return Target.model_validate({**data, "name": path.stem})


def _problem(item: ErrorDetails) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location) or "(whole file)"
    if item["type"] == "missing":
        return f"{key}: is missing"
    if item["type"] == "extra_forbidden":
        return f"{key}: no such key; {near_misses(location[-1], _keys(location[:-1]))}"
    if item["type"] == "literal_error":
        allowed = item["ctx"]["expected"] if "ctx" in item else ""
        return f"{key}: {item['input']!r} is not allowed; choose from {allowed}"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}"


def _keys(location: list[str]) -> list[str]:
    """Return the keys that the table at `location` may hold."""
    model: type[BaseModel] = TargetFile
    for part in location:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        annotation = fields[part].annotation if part in fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]
