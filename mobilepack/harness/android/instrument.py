"""What `am instrument -w -r` prints while an app carries out a plan.

Format: AOSP, cmds/am Instrument.java, raw mode: `INSTRUMENTATION_STATUS: key=value` lines, each
group ended by `INSTRUMENTATION_STATUS_CODE: n`; at the end `INSTRUMENTATION_RESULT: key=value`
lines and `INSTRUMENTATION_CODE: -1` (Activity.RESULT_OK). A crash is a result with `shortMsg` and
code 0. A value may go on over further lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mobilepack.harness.base import Progress

OK = -1
_LINE = re.compile(r"INSTRUMENTATION_(STATUS|RESULT)(_CODE|): ?(.*)|INSTRUMENTATION_CODE: (-?\d+)")


@dataclass(slots=True)
class Said:
    """What was printed so far.

    Attributes:
        results: Of the end, by key.
        error: What `am` itself says is wrong.
        code: -1 for success; None until the end.
    """

    results: dict[str, str] = field(default_factory=dict)
    error: str = ""
    code: int | None = None
    _status: dict[str, str] = field(default_factory=dict)
    _open: tuple[dict[str, str], str] | None = None

    def read(self, line: str) -> Progress | None:
        """Take one more line; return the progress that it completes."""
        match = _LINE.match(line)
        if match is None:
            self._continue(line)
            return None
        kind, is_code, text, code = match.groups()
        self._open = None
        if code is not None:
            self.code = int(code)
        elif is_code:
            return self._group()
        else:
            where = self._status if kind == "STATUS" else self.results
            key, _, value = text.partition("=")
            where[key] = value
            self._open = (where, key)
        return None

    def _continue(self, line: str) -> None:
        if self._open is not None:
            where, key = self._open
            where[key] += f"\n{line}"
        elif line.strip() and not self.error:
            self.error = line.strip()

    def _group(self) -> Progress | None:
        status, self._status = self._status, {}
        self.error = status.get("Error", self.error)
        done, total = status.get("done", ""), status.get("total", "")
        if not (done.isdecimal() and total.isdecimal()):
            return None
        return Progress(status.get("item", ""), int(done), int(total))
