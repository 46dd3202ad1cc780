"""Text piece by piece while its token ids come."""

from __future__ import annotations

from collections.abc import Sequence

from mobilepack.models.tokenizer_backends import Backend

_REPLACEMENT = "\ufffd"


class TextStream:
    """Turns ids into text as they come, holding back what may be the start of a character.

    The text of a token depends on its neighbours (a character's bytes can be spread over tokens,
    a leading space is dropped), so a window that begins at the last emitted token is decoded with
    and without the new ids, and the difference is emitted once it does not end in U+FFFD.
    """

    def __init__(self, backend: Backend, after: Sequence[int], skip_special: bool) -> None:
        self._backend = backend
        self._skip_special = skip_special
        self._ids = list(after)
        self._emitted = len(self._ids)

    def push(self, index: int) -> str:
        """Take the next id and return the text that is now certain, often one word or none."""
        self._ids.append(index)
        text, before = self._decode(self._ids), self._decode(self._ids[: self._emitted])
        if len(text) <= len(before) or text.endswith(_REPLACEMENT):
            return ""
        return self._emit(text[len(before) :])

    def finish(self) -> str:
        """Return what was held back; an incomplete character becomes U+FFFD."""
        text, before = self._decode(self._ids), self._decode(self._ids[: self._emitted])
        return self._emit(text[len(before) :])

    def _emit(self, text: str) -> str:
        self._ids = self._ids[self._emitted :]
        self._emitted = len(self._ids)
        return text

    def _decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(ids, skip_special=self._skip_special)
