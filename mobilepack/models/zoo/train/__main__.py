"""Train the embedded model and write its folder.

Takes two CPU cores for about 20 minutes. Interrupted, it goes on from its last checkpoint when
started again with ``--resume``.
"""

import argparse
import shutil
import sys
from pathlib import Path

from mobilepack.models.zoo.train.folder import write_folder
from mobilepack.models.zoo.train.loop import Recipe, train


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mobilepack.models.zoo.train")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--work", type=Path, help="folder for checkpoints (default: OUT.work)")
    parser.add_argument("--minutes", type=float, help="leave off with a checkpoint after this long")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return parser.parse_args(arguments)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of a stand-alone script


def main(arguments: list[str] | None = None, recipe: Recipe | None = None) -> None:
    """Train by the recipe (the embedded model's unless given) and write the folder."""
    options = _arguments(arguments)
    out: Path = options.out
    work: Path = options.work or out.with_name(out.name + ".work")
    if work.exists() and not options.resume:
        shutil.rmtree(work)
    seconds = None if options.minutes is None else options.minutes * 60
    trained = train(recipe or Recipe(), work, stop_after_s=seconds, report=_progress)
    write_folder(trained, out)
    _progress(f"{trained.steps} steps; wrote {out}")


if __name__ == "__main__":
    main()
