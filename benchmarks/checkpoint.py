"""Write random-weight checkpoints in published shapes, one block of rows at a time.

Run by hand: `python -m benchmarks.checkpoint smollm2-135m -o DIR`.
Speed and memory do not depend on the values of the weights, so random ones serve;
accuracy is never judged on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.shapes import SHAPES, Shape, shape_named
from mobilepack.models.zoo.random_checkpoint import write_random_checkpoint


def write_checkpoint(shape: Shape, folder: Path, seed: int = 0) -> None:
    """Write a complete Hugging Face checkpoint folder of bf16 random weights.

    The folder appears whole or not at all. The same seed gives the same bytes.
    """
    write_random_checkpoint(shape.config(), folder, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the named checkpoints under a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    parser.add_argument("shapes", nargs="+", choices=[shape.name for shape in SHAPES])
    parser.add_argument("-o", "--output-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in options.shapes:
        shape = shape_named(name)
        write_checkpoint(shape, options.output_dir / name, options.seed)
        print(options.output_dir / name, f"{shape.parameter_count() / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
