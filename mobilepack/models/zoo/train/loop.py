"""The training run: two workers, one set of weights, resumable at every checkpoint."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mobilepack.models.zoo.corpus import MixName
from mobilepack.models.zoo.train import data
from mobilepack.models.zoo.train.network import Network, Shape
from mobilepack.models.zoo.train.optimiser import Optimiser, Rates

# (step, share of the peak rate): warm up, hold, dip at the end of the sums, hold, decay to nothing.
_RATE_KNOTS: Final = (
    (-1, 0.0),
    (39, 1.0),
    (720, 1.0),
    (900, 0.625),
    (920, 0.9),
    (1250, 0.9),
    (1700, 0.0),
)
WORKERS: Final = 2


@dataclass(frozen=True, slots=True)
class Phase:
    """So many steps at one row length; every worker takes ``rows`` rows a step."""

    steps: int
    rows: int
    length: int
    mix: MixName = "even"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights. Same recipe and same kind of CPU: same weights."""

    shape: Shape = field(default_factory=Shape)
    phases: tuple[Phase, ...] = (
        Phase(300, 16, 128),
        Phase(300, 16, 128, "copying"),
        Phase(300, 8, 256, "sums"),
        Phase(400, 8, 256, "lookup"),
        Phase(300, 8, 256, "final"),
        Phase(100, 4, 512, "final"),
    )
    rates: Rates = field(default_factory=Rates)
    rate_knots: tuple[tuple[int, float], ...] = _RATE_KNOTS
    seed: int = 0
    tokenizer_documents: int = 12000
    checkpoint_steps: int = 100

    @property
    def steps(self) -> int:
        """Return the number of optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def rate_share(self, step: int) -> float:
        """Return the share of the peak rate at a step from 0: linear between the knots."""
        for (start, low), (end, high) in pairwise(self.rate_knots):
            if step <= end:
                return low + (high - low) * (step - start) / (end - start)
        return self.rate_knots[-1][1]


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished (or interrupted) run: the fp32 network, its tokenizer and how far it came."""

    network: Network
    tokenizer: Tokenizer
    steps: int


class _Trainer:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.master = Network(recipe.shape)
        self.parameters = {n: p.detach() for n, p in self.master.named_parameters()}
        self.replicas = [Network(recipe.shape).bfloat16() for _ in range(WORKERS)]
        names = list(self.parameters)
        # Each worker steps half of the parameters; every second one, so that sizes balance.
        self.optimisers = [
            Optimiser({n: self.parameters[n] for n in names[i::WORKERS]}, recipe.rates)
            for i in range(WORKERS)
        ]
        self.pool = ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,))

    def step(self, tokens: Tensor, weights: Tensor, share: float) -> float:
        """Take one step; return the mean loss per weighted token, in nats."""
        total = float(weights[:, 1:].sum())
        jobs = zip(self.replicas, tokens.chunk(WORKERS), weights.chunk(WORKERS), strict=True)
        losses = list(self.pool.map(lambda job: _gradients(job[0], job[1], job[2], total), jobs))
        list(self.pool.map(lambda optimiser: self._update(optimiser, share), self.optimisers))
        return sum(losses)

    def _update(self, optimiser: Optimiser, share: float) -> None:
        named = [dict(replica.named_parameters()) for replica in self.replicas]
        gradients = {n: sum_gradients([of[n] for of in named]) for n in optimiser.parameters}
        optimiser.step(gradients, share)
        with torch.no_grad():
            for replica in named:
                for name, parameter in optimiser.parameters.items():
                    replica[name].copy_(parameter)

    def copy_weights(self) -> None:
        """Give the replicas the master's weights, rounded to bf16."""
        for replica in self.replicas:
            replica.load_state_dict(self.master.state_dict())

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint under a temporary name and rename it when whole."""
        weights = {f"weight.{name}": value for name, value in self.parameters.items()}
        partial = path.with_suffix(".partial")
        momenta = [optimiser.state() for optimiser in self.optimisers]
        torch.save(weights | momenta[0] | momenta[1] | {"step": torch.tensor(step)}, partial)
        partial.replace(path)

    def load(self, path: Path) -> int:
        """Take up a checkpoint; return the number of steps already taken."""
        state: dict[str, Tensor] = torch.load(path, weights_only=True)
        for name, value in self.parameters.items():
            value.copy_(state[f"weight.{name}"])
        step = int(state["step"])
        for optimiser in self.optimisers:
            optimiser.load(state, step)
        return step


@torch.no_grad()
def sum_gradients(parameters: list[Tensor]) -> Tensor:
    """Add the workers' gradients in fp32, always in the same order."""
    total = torch.zeros_like(parameters[0], dtype=torch.float32)
    for parameter in parameters:
        if parameter.grad is not None:
            total += parameter.grad
            parameter.grad = None
    return total


def _gradients(replica: Network, tokens: Tensor, weights: Tensor, total: float) -> float:
    loss = replica.loss(tokens.long(), weights.float()) / total
    torch.autograd.backward(loss)
    return float(loss.detach())


def _tokenizer(recipe: Recipe, work: Path) -> Tokenizer:
    """Train the tokenizer, or read the one that an earlier start trained."""
    path = work / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    size = recipe.shape.vocab_size
    tokenizer = data.train_tokenizer(recipe.seed, recipe.tokenizer_documents, size)
    tokenizer.save(str(path))
    return tokenizer


class _Feed:
    """Hands out the batches of a recipe; makes a phase's rows when the phase begins."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer) -> None:
        self.recipe = recipe
        self.tokenizer = tokenizer
        self.ready = -1
        self.rows = data.Rows(torch.empty(0), torch.empty(0))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return tokens and weights, [rows, length + 1] each, for a step counted from 0."""
        index = 0
        while step >= self.recipe.phases[index].steps:
            step -= self.recipe.phases[index].steps
            index += 1
        phase = self.recipe.phases[index]
        if index != self.ready:
            # One stream a phase: the rows of one do not depend on the others.
            stream = data.token_stream(self.tokenizer, self.recipe.seed + index, phase.mix)
            self.rows = data.make_rows(stream, phase.steps * phase.rows * WORKERS, phase.length)
            self.ready = index
        size = phase.rows * WORKERS
        chosen = slice(step * size, (step + 1) * size)
        return self.rows.tokens[chosen], self.rows.weights[chosen]


def train(
    recipe: Recipe,
    work: Path,
    *,
    stop_after_steps: int | None = None,
    stop_after_s: float | None = None,
    report: Callable[[str], None] = print,
) -> Trained:
    """Train from the last checkpoint in ``work``, or from the start, to the recipe's end.

    Args:
        recipe: what to train.
        work: folder for tokenizer and checkpoint.
        stop_after_steps: leave off, with a checkpoint, once this many steps are done in all.
        stop_after_s: leave off, with a checkpoint, after this long.
        report: called with one line of progress now and then.
    """
    begun = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tokenizer = _tokenizer(recipe, work)
    report(f"tokenizer ready after {time.monotonic() - begun:.0f} s")
    feed = _Feed(recipe, tokenizer)
    trainer = _Trainer(recipe)
    checkpoint = work / "state.pt"
    first = trainer.load(checkpoint) if checkpoint.exists() else 0
    trainer.copy_weights()
    last = min(recipe.steps, stop_after_steps or recipe.steps)
    step = first
    for step in range(first, last):
        loss = trainer.step(*feed.batch(step), recipe.rate_share(step))
        late = stop_after_s is not None and time.monotonic() - begun > stop_after_s
        if late or step + 1 == last or (step + 1) % recipe.checkpoint_steps == 0:
            trainer.save(checkpoint, step + 1)
        if (step + 1) % 20 == 0 or late:
            report(f"step {step + 1} loss {loss:.3f} after {time.monotonic() - begun:.0f} s")
        if late:
            break
    trainer.pool.shutdown()
    return Trained(trainer.master, tokenizer, step + 1 if last > first else first)
