"""What is known of a QNN program without a phone: contexts, traffic, what ties two programs."""

from __future__ import annotations

from pydantic import Field

from mobilepack.contract.base import Contract


class NpuContext(Contract):
    """A compiled context: the graphs of one shard.

    Attributes:
        program: File of the package that holds it.
        shard: Which part of the model, counted from 0.
        methods: Whose graphs it holds; more than one share their weights.
    """

    program: str
    shard: int = Field(ge=0)
    methods: tuple[str, ...]
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class NpuGraph(Contract):
    """A graph of a context, and what one call of it moves, as the compiler reckons.

    Attributes:
        read_bytes: From the main memory, weights and inputs; None where the log does not say.
        write_bytes: To it.
        spill_bytes: Of these, results that did not fit into the NPU's own memory.
        fill_bytes: The same read back.
    """

    program: str
    shard: int = Field(ge=0)
    method: str
    operators: int = Field(ge=0)
    read_bytes: int | None = None
    write_bytes: int | None = None
    spill_bytes: int | None = None
    fill_bytes: int | None = None


class Npu(Contract):
    """A QNN package's programs.

    Attributes:
        emulator_program: What the HTP emulator runs, each method with weights of its own.
        phone_program: What a phone runs, its methods sharing their weights; None where the SoC
            cannot, and the phone runs the other.
        graphs_sha256: Of each method's graph with its encodings; both programs are compiled from
            these very graphs.
        weights_sha256: Of all constants as both programs were given them.
    """

    emulator_program: str
    phone_program: str | None
    contexts: tuple[NpuContext, ...]
    graphs: tuple[NpuGraph, ...]
    graphs_sha256: dict[str, str]
    weights_sha256: str

    def moved_bytes(self, method: str) -> int | None:
        """Return the bytes that one call of a method reads and writes; None where unknown."""
        parts = [
            (g.read_bytes, g.write_bytes)
            for g in self.graphs
            if g.method == method and g.program == (self.phone_program or self.emulator_program)
        ]
        if not parts or any(read is None or write is None for read, write in parts):
            return None
        return sum((read or 0) + (write or 0) for read, write in parts)
