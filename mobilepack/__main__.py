"""Start the command line: a failure becomes an exit code, nothing else happens here."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of docs/reference/exit-codes.md."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from mobilepack.cli.app import run

        return run(arguments)
    except (Exception, KeyboardInterrupt) as err:
        from mobilepack.cli.failures import report_failure

        return report_failure(err, arguments)


if __name__ == "__main__":
    sys.exit(main())
