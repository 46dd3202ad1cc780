"""Write a campaign's cells as one page of Markdown with pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mobilepack.contract.base import write_atomically
from mobilepack.contract.campaign import CampaignFile, Cell, Study
from mobilepack.report.campaign_cells import escaped, name_of
from mobilepack.report.campaign_views import VIEWS


def write_views(asked: CampaignFile, cells: Sequence[Cell], folder: Path, command: str) -> Path:
    """Write `README.md` and the pictures it shows into a folder; returns its path.

    Args:
        asked: The campaign.
        cells: What was measured.
        folder: Where the cells lie, too.
        command: How the campaign was run, for the text.
    """
    views = [
        VIEWS[study.kind](study, tuple(_of(study, cells)), number)
        for number, study in enumerate(asked.studies, 1)
    ]
    for view in views:
        for name, picture in view.pictures.items():
            write_atomically(folder / name, picture)
    text = "\n".join([_head(asked, cells, command), *(view.markdown for view in views)])
    path = folder / "README.md"
    write_atomically(path, text.rstrip("\n") + "\n")
    return path


def _of(study: Study, cells: Iterable[Cell]) -> Iterator[Cell]:
    for cell in cells:
        key = cell.key
        asked = (study.prompt_tokens, study.generate_tokens, study.depths)
        named = key.model in study.models and key.recipe in study.recipes
        found = (key.prompt_tokens, key.generate_tokens, key.depths)
        if named and key.device in study.devices and found == asked:
            yield cell


def _head(asked: CampaignFile, cells: Sequence[Cell], command: str) -> str:
    environments = {
        f"{c.key.device}: {c.bench.environment.name}, {c.bench.environment.cpu},"
        f" {c.bench.protocol.threads} threads"
        for c in cells
        if c.bench is not None
    }
    days = sorted({cell.utc[:10] for cell in cells})
    lines_ = [
        f"# {asked.title}",
        "",
        f"`{command}`, {' to '.join(dict.fromkeys((days[0], days[-1]))) if days else 'not run'}.",
        "",
        *(f"- {escaped(text)}" for text in sorted(environments)),
        f"- {asked.warmups} warm-ups, {asked.repetitions} repetitions, {asked.cooldown_s:g} s"
        f" between rounds, KV cache of {asked.context} positions, chunks of {asked.prefill_chunk}.",
        "- Times are medians; the verdict behind each says whether it can be believed"
        " (docs/tutorials/gates.md). None of these devices is a phone unless the table says VALID.",
        "- Models marked * have the published shape and random weights: speed and memory do not"
        " depend on the weights' values. Each cell with its raw samples is in `cells/`.",
        "",
    ]
    broken = [cell for cell in cells if cell.failure]
    lines_ += [f"- not measured: {name_of(c)} on {c.key.device}: {c.failure}" for c in broken]
    return "\n".join(lines_)
