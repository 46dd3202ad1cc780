"""Profile a package's program on this machine, in a child process."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from mobilepack.contract.profile import Profile
from mobilepack.errors import RunFailedError
from mobilepack.harness import machine
from mobilepack.process import child_env, run

CHILD = (sys.executable, "-P", "-m", "mobilepack.pipeline.profile_child")
STEPS, REPETITIONS = 16, 5
TIMEOUT_S = 1800.0


def profile_package(package: Path, prompt_tokens: int, threads: int = 0) -> Profile:
    """Return where the time of a prefill and of a decode step goes.

    Args:
        package: Of the XNNPACK backend.
        prompt_tokens: Length of the prefill.
        threads: 0 for one per physical core.

    Raises:
        RunFailedError: The child failed; its last words are in the error.
    """
    with tempfile.TemporaryDirectory(prefix="mobilepack-profile-") as folder:
        result = Path(folder) / "profile.json"
        asked = {
            "prompt": prompt_tokens,
            "steps": STEPS,
            "repetitions": REPETITIONS,
            "threads": threads or machine.physical_cores(),
            "result": str(result),
        }
        argv = (*CHILD, str(package.resolve()), json.dumps(asked))
        ended = run(argv, timeout_s=TIMEOUT_S, env=child_env())
        if not result.is_file():
            lines = ended.stderr.strip().splitlines() or ["it said nothing"]
            raise RunFailedError(
                "profile-failed",
                "the program could not be profiled",
                why=f"{ended.ending}: {lines[-1]}",
                next="run `mobilepack verify` on the package",
            )
        return Profile.read(result)
