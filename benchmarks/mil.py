"""Measure the MIL interpreter against eager PyTorch at the size of SmolLM2-135M.

`python -m benchmarks.mil` takes about three minutes on one core: it converts a decoder with random
weights (a KV cache in states, one token per call), compresses it, and times one decode step of each
configuration in turn, eager fp32 first. Memory is measured in a fresh process per configuration.
Writes JSON; a table of docs/mil.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.host import describe_host
from benchmarks.process import run_measured
from benchmarks.shapes import SHAPES
from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage

SCHEMA = "mobilepack.benchmarks.mil/1"
RESULT = Path(__file__).parent / "results" / "mil.json"
SHAPE = next(shape for shape in SHAPES if shape.name == "smollm2-135m")
POSITIONS = 256
STEPS = 32
MB = 1_000_000


class Norm(nn.Module):
    """Root-mean-square norm, in the operators that coremltools converts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x of mean square 1, scaled."""
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + SHAPE.rms_norm_eps) * self.weight


class Block(nn.Module):
    """A decoder block that blends the new row into its cache with a one-hot mask."""

    def __init__(self) -> None:
        super().__init__()
        width, inner = SHAPE.hidden_size, SHAPE.intermediate_size
        self.heads, self.kv, self.dim = (
            SHAPE.num_attention_heads,
            SHAPE.num_key_value_heads,
            SHAPE.head_dim,
        )
        self.norms = nn.ModuleList(Norm(width) for _ in range(2))
        self.q = nn.Linear(width, self.heads * self.dim, bias=False)
        self.k = nn.Linear(width, self.kv * self.dim, bias=False)
        self.v = nn.Linear(width, self.kv * self.dim, bias=False)
        self.o = nn.Linear(self.heads * self.dim, width, bias=False)
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)
        cache = torch.zeros(1, self.kv, POSITIONS, self.dim)
        self.register_buffer("keys", cache.clone())
        self.register_buffer("values", cache.clone())

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, hot: Tensor, mask: Tensor) -> Tensor:
        """Return x [1, 1, width] after attention over the cache and the feed-forward."""
        h = self.norms[0](x)
        q = self._turned(self.q(h).view(1, 1, self.heads, self.dim).transpose(1, 2), cos, sin)
        k = self._turned(self.k(h).view(1, 1, self.kv, self.dim).transpose(1, 2), cos, sin)
        v = self.v(h).view(1, 1, self.kv, self.dim).transpose(1, 2)
        self.keys.copy_(self.keys * (1 - hot) + hot * k)
        self.values.copy_(self.values * (1 - hot) + hot * v)
        keys, values = (
            t.unsqueeze(2)
            .expand(1, self.kv, self.heads // self.kv, POSITIONS, self.dim)
            .reshape(1, self.heads, POSITIONS, self.dim)
            for t in (self.keys, self.values)
        )
        y = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        x = x + self.o(y.transpose(1, 2).reshape(1, 1, -1))
        h = self.norms[1](x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))

    @staticmethod
    def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin


class Decoder(nn.Module):
    """One token in, its logits out; embedding and head share a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SHAPE.vocab_size, SHAPE.hidden_size)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.blocks = nn.ModuleList(Block() for _ in range(SHAPE.num_hidden_layers))
        self.norm = Norm(SHAPE.hidden_size)
        rates = SHAPE.rope_theta ** (-torch.arange(0, SHAPE.head_dim, 2) / SHAPE.head_dim)
        angles = torch.outer(torch.arange(POSITIONS).float(), rates).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("places", torch.arange(POSITIONS, dtype=torch.int32))

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        """Return logits [1, 1, vocabulary] of token int32 [1, 1] at position int32 [1]."""
        x = self.embedding(token)
        hot = (self.places == position).to(x.dtype)[:, None]
        mask = torch.where(self.places <= position, 0.0, -1e4).to(x.dtype)[None]
        for block in self.blocks:
            x = block(x, self.cos[position], self.sin[position], hot, mask)
        return functional.linear(self.norm(x), self.embedding.weight)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A way of interpreting; memory is what decompressed weights may take."""

    name: str
    package: str
    rounding: str
    memory_mb: int


CONFIGURATIONS = (
    Configuration("fp16", "fp16", "declared", 4096),
    Configuration("fp16, no rounding", "fp16", "none", 4096),
    Configuration("fp16, no memory for weights", "fp16", "declared", 0),
    Configuration("int4 per channel", "int4", "declared", 4096),
    Configuration("int4 per channel, 300 MB for weights", "int4", "declared", 300),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one configuration cost.

    Attributes:
        step_ms: CPU milliseconds of each decode step, one thread.
        ratio: Median of the step over that of eager fp32 PyTorch.
        load_s: CPU seconds from opening the package to the end of the first step.
        peak_rss_mb: Of a process that loads the program and runs four steps (its VmHWM).
        anonymous_mb: What of that process's memory is no mapped file, after the steps.
        cosine: Smallest cosine of the logits against eager fp32; None where weights differ.
    """

    name: str
    step_ms: tuple[float, ...]
    ratio: float
    load_s: float
    peak_rss_mb: float
    anonymous_mb: float
    cosine: float | None


def packages(folder: Path) -> Decoder:
    """Convert the decoder, and compress it; return it."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    torch.manual_seed(0)
    decoder = Decoder().eval().requires_grad_(False)
    example = (torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    exported = torch.export.export(decoder, example).run_decompositions({})
    model = ct.convert(
        exported,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    model.save(str(folder / "fp16.mlpackage"))
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int4")
    whole = cto.OptimizationConfig(global_config=config)
    cto.linear_quantize_weights(model, whole).save(str(folder / "int4.mlpackage"))
    return decoder


def runner(folder: Path, how: Configuration) -> Callable[[int], Tensor]:
    """Return a function that decodes step `n`."""
    program = open_mlpackage(folder / f"{how.package}.mlpackage")
    interpreter = Interpreter(program, how.rounding, how.memory_mb * MB)  # type: ignore[arg-type]

    def step(n: int) -> Tensor:
        token, position = (torch.tensor(v, dtype=torch.int32) for v in ([[n * 7]], [n]))
        (logits,) = interpreter.run({"token": token, "position": position}).values()
        return logits

    return step


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds and the result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measure(folder: Path, decoder: Decoder) -> tuple[tuple[float, ...], list[Row]]:
    """Return eager's milliseconds per step, and a row per configuration."""
    ways = [runner(folder, how) for how in CONFIGURATIONS]
    loads = [timed(lambda step=step: step(0))[0] for step in ways]  # type: ignore[misc]
    eager: list[float] = []
    steps: list[list[float]] = [[] for _ in ways]
    cosines = [1.0] * len(ways)
    with torch.inference_mode():
        decoder(torch.tensor([[0]]), torch.tensor([0]))
        for n in range(1, STEPS + 1):
            spent, wanted = timed(lambda n=n: decoder(torch.tensor([[n * 7]]), torch.tensor([n])))  # type: ignore[misc]
            eager.append(spent * 1e3)
            for index, step in enumerate(ways):
                spent, logits = timed(lambda n=n, step=step: step(n))  # type: ignore[misc]
                steps[index].append(spent * 1e3)
                same = functional.cosine_similarity(logits.flatten(), wanted.flatten(), 0)
                cosines[index] = min(cosines[index], float(same))
    rows = []
    for how, taken, load, cosine in zip(CONFIGURATIONS, steps, loads, cosines, strict=True):
        known = cosine if how.package == "fp16" else None
        ratio = median(taken) / median(eager)
        peak, anonymous = memory_mb(folder, how.name)
        rows.append(Row(how.name, tuple(taken), ratio, load, peak, anonymous, known))
    return tuple(eager), rows


def memory_mb(folder: Path, name: str) -> tuple[float, float]:
    """Return peak and anonymous memory of a fresh process that runs four steps.

    It reads both itself: `ru_maxrss` of a child begins with its parent's.
    """
    command = [sys.executable, "-m", "benchmarks.mil", "--child", name, "--packages", str(folder)]
    peak, anonymous = json.loads(run_measured(command, limit_s=600).stdout)
    return peak, anonymous


def child(folder: Path, name: str) -> None:
    """Load one configuration, run four steps, print peak and anonymous memory."""
    step = runner(folder, next(how for how in CONFIGURATIONS if how.name == name))
    for n in range(4):
        step(n)
    status = Path("/proc/self/status").read_text()
    found = {row.split(":")[0]: row.split()[1] for row in status.splitlines() if "kB" in row}
    print(json.dumps([int(found[key]) * 1024 / MB for key in ("VmHWM", "RssAnon")]))


def render(path: Path = RESULT) -> str:
    """Return the table of a results document."""
    document = json.loads(path.read_text())
    rows = [
        "| configuration | CPU ms per token | times eager | load, CPU s | peak memory, MB |"
        " not mapped, MB | cosine with eager |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| eager PyTorch, fp32 | {median(document['eager_step_ms']):.0f} | 1 | | | | |",
    ]
    for row in document["rows"]:
        cosine = "" if row["cosine"] is None else f"{row['cosine']:.7f}"
        rows.append(
            f"| {row['name']} | {median(row['step_ms']):.0f} | {row['ratio']:.2f} |"
            f" {row['load_s']:.1f} | {row['peak_rss_mb']:.0f} |"
            f" {row['anonymous_mb']:.0f} | {cosine} |"
        )
    host = document["host"]
    where = f"{document['started_utc'][:10]}, one core of {host['cpu_model'].strip()}"
    return f"{where}, {document['steps']} steps:\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    """Run the benchmark, or one of its children."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--packages", type=Path, help="keep the packages in this folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.child:
        child(chosen.packages, chosen.child)
        return
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.packages or Path(temporary)
        decoder = packages(folder)
        eager, rows = measure(folder, decoder)
    document = {
        "schema": SCHEMA,
        "started_utc": started,
        "host": asdict(describe_host()),
        "shape": SHAPE.name,
        "positions": POSITIONS,
        "steps": STEPS,
        "eager_step_ms": eager,
        "rows": [asdict(row) for row in rows],
    }
    chosen.out.write_text(json.dumps(document, indent=2) + "\n")
    print(render(chosen.out))


if __name__ == "__main__":
    main()
