"""The child's side of a conversation: requests in, tokens out, the KV cache kept between them."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

import numpy as np

from mobilepack.contract.base import Contract
from mobilepack.harness.runner import Step, prefill
from mobilepack.harness.sampling import Sampler
from mobilepack.harness.scoring import score
from mobilepack.harness.talk import CANCEL, End, Request, Score, Token, parse_asked

Emit = Callable[[Contract], None]


class LineReader:
    """Lines of a file descriptor, with a look ahead that does not block."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._buffer = b""
        self._open = True

    def next(self) -> str | None:
        """Return the next line, None at the end."""
        while b"\n" not in self._buffer and self._open:
            self._fill()
        line, found, self._buffer = self._buffer.partition(b"\n")
        return line.decode() if found else None

    def waiting(self) -> bool:
        """Whether a line, or the end, can be had without waiting."""
        while self._open and b"\n" not in self._buffer and select.select([self._fd], [], [], 0)[0]:
            self._fill()
        return b"\n" in self._buffer or not self._open

    def _fill(self) -> None:
        part = os.read(self._fd, 1 << 16)
        self._buffer += part
        self._open = bool(part)


def serve(step: Step, prefill_chunk: int, emit: Emit, lines: LineReader) -> None:
    """Answer requests until the input ends."""
    while (line := lines.next()) is not None:
        if line == CANCEL:  # one that came too late
            continue
        asked = parse_asked(line)
        if isinstance(asked, Score):
            emit(score(asked, step, prefill_chunk))
        else:
            emit(_answer(asked, step, prefill_chunk, emit, lines))


def _answer(request: Request, step: Step, prefill_chunk: int, emit: Emit, lines: LineReader) -> End:
    sample = Sampler(request.temperature, request.top_p, request.seed)
    start = time.monotonic_ns()
    tokens = np.array(request.token_ids, dtype=np.int64)
    logits = prefill(step, tokens, request.position, prefill_chunk)
    position = request.position + len(tokens)
    made, cancelled = 0, False
    while True:
        token = sample(logits)
        made += 1
        emit(Token(id=token, ns=time.monotonic_ns() - start))
        cancelled = lines.waiting()
        if token in request.stop_ids or made == request.max_new_tokens or cancelled:
            break
        logits = step(np.array([token], dtype=np.int64), position)
        position += 1
    return End(
        positions=position,
        new_tokens=made,
        stopped=token in request.stop_ids,
        cancelled=cancelled,
    )
