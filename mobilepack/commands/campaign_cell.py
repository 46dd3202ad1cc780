"""One cell of a campaign: its package built, measured, and profiled."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.build import BuildOptions, Built, build
from mobilepack.contract.bench import Bench
from mobilepack.contract.campaign import (
    CampaignFile,
    CampaignModel,
    Cell,
    CellKey,
    MemoryParts,
)
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.profile import Profile
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Harness
from mobilepack.harness.profile import profile_package
from mobilepack.models.weights import open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.published import published_config
from mobilepack.models.zoo.random_checkpoint import spec_of, write_random_checkpoint
from mobilepack.pipeline.plan import Choices


def built_package(asked: CampaignFile, name: str, recipe: str, work: Path) -> Built:
    """Build a model of a campaign with one of its recipes; see `Builder`."""
    model, wanted = asked.models[name], asked.recipe(recipe)
    source, positions = _source(model, work)
    choices = Choices(
        linear=wanted.linear,
        group_size=wanted.group_size,
        embedding=wanted.embedding,
        kv_cache=wanted.kv_cache,
        max_seq_len=min(asked.context, positions),
        prefill_chunk=min(asked.prefill_chunk, asked.context, positions),
    )
    out = work / "packages" / recipe
    (built,) = build(BuildOptions(model=source, targets=(wanted.target,), out=out, choices=choices))
    return built


def _source(model: CampaignModel, work: Path) -> tuple[str, int]:
    """Return a checkpoint and how many positions its model knows."""
    if model.shape is not None:
        config = published_config(model.shape)
        folder = work / model.shape
        write_random_checkpoint(config, folder)
        return str(folder), spec_of(config).max_positions
    source = str(embedded_path()) if model.source == "embedded" else str(model.source)
    opened = open_model(source)
    try:
        return source, opened.spec.max_positions
    finally:
        opened.close()


def measured_cell(asked: CampaignFile, key: CellKey, built: Built, harness: Harness) -> Cell:
    """Time a package on a device, and profile it where the study asks for that."""
    gen = key.generate_tokens
    found = bench(
        built.folder,
        BenchOptions(
            prompt_tokens=() if gen else key.prompt_tokens,
            gen_tokens=(),
            pairs=tuple((prompt, gen) for prompt in key.prompt_tokens) if gen else (),
            depths=key.depths,
            warmups=asked.warmups,
            repetitions=asked.repetitions,
            cooldown_s=asked.cooldown_s,
            threads=asked.threads,
            timeout_s=asked.timeout_s,
        ),
        harness=harness,
    ).bench
    profile, why = _profiled(asked, key, built)
    return Cell(
        key=key,
        utc=now_utc(),
        parameters=built.manifest.parameters,
        program_bytes=found.program_bytes,
        random_weights=asked.models[key.model].shape is not None,
        bench=found,
        memory=memory_parts(built.manifest, found),
        profile=profile,
        why_no_profile=why,
        steps_ms=steps_of(found),
    )


def _profiled(asked: CampaignFile, key: CellKey, built: Built) -> tuple[Profile | None, str]:
    if not key.profile:
        return None, ""
    if built.manifest.plan.backend != "xnnpack":
        return None, "operators are profiled on XNNPACK packages"
    try:
        return profile_package(built.folder, key.prompt_tokens[0], asked.threads), ""
    except RunFailedError as err:
        return None, f"{err.what}: {err.why}"


def memory_parts(manifest: Manifest, measured: Bench) -> MemoryParts:
    """Split the peak of memory as the survey does."""
    known = manifest.memory
    parts = (known.parameters_bytes, known.kv_cache_bytes, known.activations_bytes)
    return MemoryParts(
        parameters=parts[0],
        kv_cache=parts[1],
        compute_buffer=parts[2],
        other=max(measured.peak_over_base_bytes - sum(parts), 0),
    )


def steps_of(measured: Bench) -> tuple[float, ...]:
    """Return the median time of each token of the longest generation, milliseconds."""
    longest = max(measured.tests, key=lambda test: (test.n_gen, -test.n_depth))
    return tuple(median(step) / 1e6 for step in zip(*longest.decode_ns, strict=True))


def now_utc() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
