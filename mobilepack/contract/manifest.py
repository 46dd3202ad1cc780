"""manifest.json: what a package is, how it was built and what it costs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract
from mobilepack.contract.compression import Compression, CompressionReport
from mobilepack.contract.npu import Npu

LinearRecipe = Literal["fp32", "8da4w", "fp16", "16a8w", "16a4w", "8w", "4w", "4p"]
EmbeddingRecipe = Literal["fp32", "8w", "4w", "fp16", "16w"]
KvCacheRecipe = Literal["fp32", "fp16", "int8"]
Lowering = Literal["fast", "reference"]

RECURRENT = "use_recurrent_state"
"""The constant method by which a program says that its state cannot be rewound."""


class Recipe(Contract):
    """How weights, embedding and KV cache are stored.

    Attributes:
        linear: `fp32`, or `8da4w` (dynamic int8 activations, symmetric int4 weights in groups);
            `fp16`, or `16a8w` or `16a4w` (static 16-bit activations, symmetric int8 or int4 weights
            with one scale per row); `8w` or `4w` (fp16 activations, symmetric int8 or int4 weights
            with one scale per row) or `4p` (fp16 activations, 4-bit places in tables of 16 values).
        group_size: Columns that share one scale (`8da4w`), or rows that share one table (`4p`);
            0 otherwise.
        embedding: `fp32`, `8w` (int8, one scale per row) or `4w` (int4 in groups of 32); `fp16`, or
            `16w` (16 bits, one scale).
        kv_cache: Element type of the KV cache; int8 has one float32 scale per token and head.
    """

    linear: LinearRecipe = "8da4w"
    group_size: Literal[0, 8, 16, 32, 64, 128] = 32
    embedding: EmbeddingRecipe = "4w"
    kv_cache: KvCacheRecipe = "fp32"

    @property
    def linear_text(self) -> str:
        """The linear layers in words: `8da4w group 32`, `16a4w`."""
        return f"{self.linear} group {self.group_size}" if self.group_size else self.linear


class ModelIdentity(Contract):
    """Which checkpoint went in.

    Attributes:
        source: Folder or hub id as the user named it.
        revision: Commit of a hub checkpoint, else None.
        family: Family that read the config, for example `llama`.
        fingerprint: sha256 over config, tokenizer files and the safetensors headers, sizes and
            modification times of the weight files.
    """

    source: str
    revision: str | None = None
    family: str
    fingerprint: str

    @property
    def name(self) -> str:
        """Last part of the folder's path or hub id."""
        return self.source.rstrip("/").rpartition("/")[2]


class BuildPlan(Contract):
    """Everything that decides the bytes of a package; its sha256 is the `plan_id`.

    Attributes:
        soc_model: The chip that the program is compiled for; None where any will do.
        ios: Least version of iOS, of a Core ML program.
        artefact: What a Core ML program is written as.
        states: Whether a Core ML program keeps keys and values in states.
        weight_limit_bytes: Most weights of one Core ML program; a larger model is cut into several.
        calibration_sha256: Of the text whose activations decide the quantisation; None without.
        compression: What is done to the weights before they are lowered; None for nothing.
    """

    target: str
    backend: str
    soc_model: str | None = None
    ios: int | None = None
    artefact: Literal["mlpackage", "pte"] | None = None
    states: bool = False
    weight_limit_bytes: int | None = None
    calibration_sha256: str | None = None
    model: ModelIdentity
    recipe: Recipe
    max_seq_len: int = Field(ge=2)
    prefill_chunk: int = Field(ge=1)
    lowering: Lowering = "fast"
    compression: Compression | None = None
    toolchain: dict[str, str]


class FileEntry(Contract):
    """One file of the package: POSIX path below the package root, length and checksum."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Encoding(Contract):
    """How integers stand for numbers: `(integer - zero_point) * scale`."""

    scale: float = Field(gt=0)
    zero_point: int


class TensorSpec(Contract):
    """A method's input or output.

    Attributes:
        shape: A dimension that varies is its bound, named in `dynamic`.
        encoding: Of a quantised tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    dynamic: tuple[int, ...] = ()
    encoding: Encoding | None = None


class FunctionCall(Contract):
    """A call of one function of one Core ML program.

    Tensors are handed over by name: an input is one of the method's inputs or an earlier call's
    output, and an output `new_x` becomes `x` from then on.

    Attributes:
        program: Path below the package root, or the key of a delegate's package in a `.pte`.
    """

    program: str
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Method(Contract):
    """A method of the program with its tensors in call order.

    Attributes:
        calls: What it is made of where programs are called function by function; of a `.pte`, what
            its delegates call.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calls: tuple[FunctionCall, ...] = ()


class StaticForm(Contract):
    """How to call a program whose methods have fixed lengths.

    `prefill` takes `prefill_tokens` tokens, right-aligned (padding comes first), and `decode` one;
    both return the logits of the last. Inputs are `tokens` and `positions` int32 [1, n], of whose
    n >= T numbers the last T count; one mask per window [1, 1, T, columns] that is added to the
    scores (0, or `mask_value` where a query may not look): column p is position p of the cache,
    then come the T tokens, and what is left is masked; then every layer's keys and values. Outputs
    are the logits (all numbers in order are the vocabulary's), then every layer's keys and values
    of the T tokens, which the caller writes to the cache. Methods list what they really take.

    With states the program keeps the cache: nothing of it goes in or out. `write` [1, 1, T, past]
    has a 1 where a token's position is, in a row of zeros (padding: zeros only), and the mask's
    columns are the positions of the cache, the T tokens among them.

    Attributes:
        past: Positions that the cache holds.
        windows: Sliding window of each mask in tokens, 0 for full attention.
        keys: `channels_first`: keys are [1, heads, channels, past], values [1, heads, past,
            channels]; `positions_first`: both are [1, heads, past, channels].
        states: Whether the program keeps keys and values in states.
    """

    past: int = Field(ge=1)
    prefill_tokens: int = Field(ge=1)
    mask_value: float = Field(lt=0)
    windows: tuple[int, ...]
    keys: Literal["channels_first", "positions_first"] = "channels_first"
    states: bool = False


class OperatorCount(Contract):
    """How often an operator runs outside the delegate in one call of a method."""

    operator: str
    count: int


class Placement(Contract):
    """What the delegate runs, by operators and by weight bytes, and what fell back.

    Attributes:
        weight_cache: Whether the program may be loaded with ExecuTorch's XNNPACK weight cache. It
            frees named constants after the load, so XNNPACK must have packed every one.
    """

    delegates: int
    delegated_operators: int
    fallback_operators: int
    delegated_weight_bytes: int
    fallback_weight_bytes: int
    fallback: tuple[OperatorCount, ...]
    weight_cache: bool = False


class WeightFormat(Contract):
    """How many parameters are stored in one format, and their bytes with scales."""

    format: str
    parameters: int
    bytes: int


class MemorySplit(Contract):
    """Memory of a loaded program at its longest length.

    Attributes:
        parameters_bytes: Weights as stored in the program.
        kv_cache_bytes: KV cache for `max_seq_len` positions.
        activations_bytes: Planned intermediate tensors outside the delegate, plus the delegate's
            largest workspace as estimated from its graph.
    """

    parameters_bytes: int
    kv_cache_bytes: int
    activations_bytes: int


class StageCost(Contract):
    """What one build stage took.

    Attributes:
        wall_s: Seconds from a monotonic clock.
        cpu_s: User and system seconds of this process and its children.
        peak_rss_bytes: High-water resident memory of the process at the end of the stage.
    """

    name: str
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


class TokenizerInfo(Contract):
    """Which tokenizer files travel with the program and the special ids it uses."""

    kind: Literal["huggingface", "sentencepiece"]
    files: tuple[str, ...]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    chat_template: bool


class Licence(Contract):
    """What the checkpoint says about its licence, and the files that say it."""

    name: str | None
    files: tuple[str, ...] = ()


class Manifest(Contract):
    """The package's description of itself.

    Attributes:
        static: How to call the program if its methods are `prefill` and `decode`, else None.
        runtime_version: Of the delegate's libraries that compiled the program; a device needs the
            same or newer ones. None where the delegate is part of ExecuTorch.
        activation_ranges: Least and largest value of each activation that calibration saw, by the
            node of `decode`; empty where activations are not quantised ahead of time.
        npu: Contexts and traffic of a QNN program; None for other backends and for ExecuTorch's
            own lowering.
        compression: What became of the weights before they were lowered; None if nothing did.
    """

    schema_: Literal["mobilepack/manifest/1"] = Field("mobilepack/manifest/1", alias="schema")
    plan_id: str
    plan: BuildPlan
    parameters: int
    files: tuple[FileEntry, ...]
    methods: tuple[Method, ...]
    static: StaticForm | None = None
    runtime_version: str | None = None
    activation_ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    metadata: dict[str, int | bool | tuple[int, ...]]
    placement: Placement
    weights: tuple[WeightFormat, ...]
    quantised_share: float = Field(ge=0, le=1)
    memory: MemorySplit
    tokenizer: TokenizerInfo
    licence: Licence
    npu: Npu | None = None
    compression: CompressionReport | None = None
    stages: tuple[StageCost, ...]
