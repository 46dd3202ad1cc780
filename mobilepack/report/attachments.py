"""Raw results inside the page: links that a browser saves as files without any network."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mobilepack.contract.base import Contract
from mobilepack.report.runs import Runs

PLAIN_BYTES = 1_000_000
"""Longer files are compressed, so that a page with 10,000 rows stays a few megabytes."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file to download.

    Attributes:
        uri: A data: URI of base64.
        bytes: Of the file that is saved.
    """

    name: str
    uri: str
    bytes: int


def attachments(runs: Runs) -> Iterator[Attachment]:
    """Yield the records of the page as they lie in the package: raw samples, every metric."""
    for parity in runs.parity:
        yield _attach("parity", parity.device, parity)
    for bench in runs.bench:
        yield _attach("bench", bench.device, bench)
    for evaluation in runs.evaluations:
        yield _attach("eval", evaluation.device, evaluation)


def _attach(kind: str, device: str, record: Contract) -> Attachment:
    name = f"{kind}-{_file_name(device)}.json"
    raw, media = record.to_json().encode(), "application/json"
    if len(raw) > PLAIN_BYTES:
        name, raw, media = f"{name}.gz", gzip.compress(raw, 6, mtime=0), "application/gzip"
    return Attachment(name, f"data:{media};base64,{base64.b64encode(raw).decode()}", len(raw))


def _file_name(device: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", device)[:64]
