"""The two libraries that turn text into token ids, behind one small interface."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from mobilepack.errors import UsageError

if TYPE_CHECKING:
    import sentencepiece
    import tokenizers

Kind = Literal["huggingface", "sentencepiece"]

# A ModelProto that says only normalizer_spec { add_dummy_prefix: false }. Protocol buffers merge
# a repeated occurrence of a message field, so appending it to a model overrides that one flag.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
_SPACE = "▁"  # U+2581, how SentencePiece writes a space
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is cut out of the text before anything else sees it.

    Attributes:
        special: Control token: may be left out when decoding.
        lstrip: Swallows white space before it.
        rstrip: Swallows white space after it.
    """

    content: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False


class Backend(Protocol):
    """A loaded vocabulary."""

    @property
    def kind(self) -> Kind:
        """Which library it is."""
        ...

    @property
    def words(self) -> int:
        """One more than the largest id that a text without special tokens can have."""
        ...

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Return a text's ids; `add_special` adds what the vocabulary's own file says."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of ids; ids that stand for no token are left out."""
        ...

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its exact content."""
        ...


class HuggingFaceBackend:
    """tokenizer.json, through the tokenizers library."""

    kind: Kind = "huggingface"

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.words = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1) + 1

    @classmethod
    def open(
        cls, path: Path, added: Mapping[int, AddedToken], made: str | None = None
    ) -> HuggingFaceBackend:
        """Load tokenizer.json and the added tokens that only tokenizer_config.json names.

        Args:
            path: The file, or the one that `made` was made of.
            added: The added tokens by id.
            made: The text of a tokenizer.json that is in no file.

        Raises:
            UsageError: The file is broken, or the added tokens have other ids in it.
        """
        import tokenizers

        try:
            library = tokenizers.Tokenizer
            tokenizer = library.from_file(str(path)) if made is None else library.from_str(made)
        # The library raises plain Exception for everything.
        except Exception as err:
            raise invalid_tokenizer(path, str(err)) from err
        # A length baked into the file would silently cut prompts; transformers switches both off.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for index, token in sorted(added.items()):
            _add(tokenizer, path, index, token)
        return cls(tokenizer)

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Return a text's ids; `add_special` runs the file's post-processor."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its exact content."""
        index = self._tokenizer.token_to_id(token)
        return None if index is None else int(index)


def _add(tokenizer: tokenizers.Tokenizer, path: Path, index: int, token: AddedToken) -> None:
    from tokenizers import AddedToken as LibraryToken

    if tokenizer.token_to_id(token.content) is None:
        made = LibraryToken(
            token.content, lstrip=token.lstrip, rstrip=token.rstrip, special=token.special
        )
        tokenizer.add_tokens([made])
    if tokenizer.token_to_id(token.content) != index:
        found = tokenizer.token_to_id(token.content)
        raise invalid_tokenizer(
            path, f"{token.content!r} has id {found} there, {index} in tokenizer_config.json"
        )


class SentencePieceBackend:
    """tokenizer.model, through the SentencePiece library, with special tokens cut out first.

    As transformers' slow Llama tokenizer: the text gets SentencePiece's dummy prefix (a space) at
    its very start only; with `legacy` every stretch of text between special tokens gets one.
    transformers 5 converts such files to its own BPE, which differs in two cases: it adds no prefix
    to a text that begins with a space, and it pairs the spaces of a run before a space joins the
    word after it. SentencePiece itself, the models' training and the C++ runners on the phone do
    neither, and nor does this class.
    """

    kind: Kind = "sentencepiece"

    def __init__(
        self,
        processor: sentencepiece.SentencePieceProcessor,
        added: Mapping[int, AddedToken],
        legacy: bool,
        prefix: bool = True,
    ) -> None:
        """Index the vocabulary.

        Args:
            processor: A model loaded without its dummy prefix.
            added: Tokens beyond or among the model's pieces that are cut out of the text.
            legacy: See the class.
            prefix: Whether the model has a dummy prefix at all; Gemma's has none.
        """
        self._processor = processor
        self._legacy = legacy
        self._prefix = prefix
        self._tokens = {i: AddedToken(processor.IdToPiece(i)) for i in _control_ids(processor)}
        self._tokens |= added
        self._ids = {token.content: index for index, token in self._tokens.items()}
        self._splitter = _splitter(self._tokens.values())
        self.words = int(processor.GetPieceSize())

    @classmethod
    def open(
        cls, path: Path, added: Mapping[int, AddedToken], *, legacy: bool
    ) -> SentencePieceBackend:
        """Load a SentencePiece model file."""
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor()
        try:
            raw = path.read_bytes()
            # Parsed as it is first, so that a broken file is not mended by what is appended.
            processor.LoadFromSerializedProto(raw)
            prefix = str(processor.EncodeAsPieces("x")[0]).startswith(_SPACE)
            processor.LoadFromSerializedProto(raw + _NO_DUMMY_PREFIX)
            return cls(processor, added, legacy, prefix)
        except (OSError, RuntimeError, ValueError) as err:
            raise invalid_tokenizer(path, str(err)) from err

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Return a text's ids; a SentencePiece file says nothing about special tokens to add."""
        ids: list[int] = []
        position = 0
        for match in self._splitter.finditer(text) if self._splitter else ():
            ids += self._pieces(text[position : match.start()], first=position == 0)
            ids.append(self._ids[match[match.lastindex or 0]])
            position = match.end()
        return ids + self._pieces(text[position:], first=position == 0)

    def _pieces(self, text: str, *, first: bool) -> list[int]:
        if not text:
            return []
        prefix = _SPACE if self._prefix and (first or self._legacy) else ""
        return list(self._processor.EncodeAsIds(prefix + text))

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of ids, without the dummy prefix; broken UTF-8 becomes U+FFFD."""
        raw = b"".join(self._bytes(index, skip_special) for index in ids)
        text = raw.decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._prefix else text

    def _bytes(self, index: int, skip_special: bool) -> bytes:
        token = self._tokens.get(index)
        if token is not None:
            return b"" if skip_special and token.special else token.content.encode()
        if not 0 <= index < self._processor.GetPieceSize():
            return b""
        piece = str(self._processor.IdToPiece(index))
        if self._processor.IsByte(index) and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return piece.replace(_SPACE, " ").encode()

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its exact content."""
        if token in self._ids:
            return self._ids[token]
        index = int(self._processor.PieceToId(token))
        return index if self._processor.IdToPiece(index) == token else None


def _control_ids(processor: sentencepiece.SentencePieceProcessor) -> list[int]:
    indexes = range(processor.GetPieceSize())
    return [i for i in indexes if processor.IsControl(i) or processor.IsUnknown(i)]


def _splitter(tokens: Iterable[AddedToken]) -> re.Pattern[str] | None:
    """Return a pattern that matches any token, the longest first, each in a group of its own.

    The white space that a token swallows is matched outside its group.
    """
    named = (token for token in tokens if token.content)
    listed = sorted(named, key=lambda token: -len(token.content))
    parts = [
        (r"\s*" if t.lstrip else "") + f"({re.escape(t.content)})" + (r"\s*" if t.rstrip else "")
        for t in listed
    ]
    return re.compile("|".join(parts)) if parts else None


def invalid_tokenizer(path: Path, why: str) -> UsageError:
    """Return the error for a tokenizer file that its library refuses."""
    return UsageError(
        "invalid-tokenizer",
        f"cannot load the tokenizer {path}",
        why=why or "the file is not what its name says",
        next="download the tokenizer files again, all from the same revision",
    )
