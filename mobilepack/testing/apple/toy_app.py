"""The demo app's side of a run, with a toy for a model.

Arguments: how it misbehaves (crash, hang, other-id, no-result), then `--run ID`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

FOLDER = "Documents/mobilepack"


def say(folder: Path, run_id: str, event: dict[str, object]) -> None:
    """Say an event as the app does: on stdout, and in the container."""
    path = folder / f"events-{run_id}.jsonl"
    number = len(path.read_text().splitlines()) if path.is_file() else 0
    line = json.dumps({"n": number} | event)
    with path.open("a") as file:
        file.write(line + "\n")
    sys.stdout.write(f"MOBILEPACK {line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Carry out the plan of a run."""
    from mobilepack.contract.run_plan import RunPlan
    from mobilepack.harness.base import Progress
    from mobilepack.testing.fakes import TICK_NS, FakeHarness

    run_id = arguments[arguments.index("--run") + 1]
    folder = Path.home() / FOLDER
    if "crash" in arguments:
        os.abort()
    raw = (folder / f"plan-{run_id}.json").read_bytes()
    plan = RunPlan.parse(raw, "plan")
    if not (folder / plan.program).is_file():
        say(folder, run_id, {"event": "failed", "why": f"{plan.program} is not there"})
        return 1
    say(folder, run_id, {"event": "loaded", "load_ns": TICK_NS, "threads": plan.threads or 1})
    if "hang" in arguments:
        time.sleep(3600)

    def tell(progress: Progress) -> None:
        item = {"item": progress.item, "done": progress.done, "total": progress.total}
        say(folder, run_id, {"event": "item", **item})

    result = FakeHarness().run(folder, plan, log=folder / "log.txt", on_progress=tell)
    if "no-result" in arguments:
        return 0
    name = "another" if "other-id" in arguments else run_id
    (folder / f".result-{name}").write_text(result.to_json())
    (folder / f".result-{name}").rename(folder / f"result-{name}.json")
    say(folder, run_id, {"event": "written", "run_id": name})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
