"""Run the demo and put what it prints into README.md: what `make transcript` runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- transcript -->\n```console\n).*?(```\n<!-- /transcript -->)", re.DOTALL)


def main() -> int:
    """Replace the transcript by the output of `.ci/demo.sh`, messages on stderr left out."""
    command = ["sh", ".ci/demo.sh", "out/demo"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    text = README.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise SystemExit("README.md has no transcript markers")
    shown = done.stdout.strip()
    README.write_text(BLOCK.sub(lambda m: f"{m[1]}{shown}\n{m[2]}", text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
