"""The files of a checkpoint folder that a GGUF file has inside: configs, tokenizer, licence.

They are written once into the user's cache, under the digest of the file's header, so that whatever
reads a checkpoint finds them where it looks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mobilepack.cache import cache_folder
from mobilepack.models.config import JsonObject
from mobilepack.models.gguf.config import config_of, factors_of, generation_config_of
from mobilepack.models.gguf.file import GgufFile
from mobilepack.models.gguf.tokenizer import write_tokenizer
from mobilepack.models.weight_file import WeightFile
from mobilepack.version import exact_version

FOLDER = "gguf"
KEEP = 32
_WHOLE = ".whole"
_LICENCE = re.compile(r"[\w.+-]{1,80}")


def open_gguf(
    path: Path, check: Callable[[JsonObject], object] | None
) -> tuple[Path, dict[str, WeightFile]]:
    """Open a GGUF file; return the folder of what it has beside weights, and each tensor's file.

    Raises:
        UsageError: See `GgufFile.open` and `companions`.
    """
    file = GgufFile.open(path)
    try:
        return companions(file, check), dict.fromkeys(file.tensors, file)
    except BaseException:
        file.close()
        raise


def companions(file: GgufFile, check: Callable[[JsonObject], object] | None) -> Path:
    """Return a folder with the configs and the tokenizer of a GGUF file.

    Args:
        file: The open file.
        check: Raises if the config cannot be built.

    Raises:
        UsageError: Metadata or vocabulary are wrong or of a kind that cannot be read.
    """
    folder = _place(file)
    if (folder / _WHOLE).is_file():
        return folder
    config = config_of(file)
    if check is not None:
        check(config)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    except OSError:  # a cache that cannot be written is done without
        folder, partial = (Path(tempfile.mkdtemp(prefix="mobilepack-gguf-")),) * 2
    try:
        _write(file, config, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return _published(partial, folder)


def _place(file: GgufFile) -> Path:
    """Return the folder of everything that the files are made of: header, factors, this source."""
    parts = (file.header_sha256.hex(), sorted(factors_of(file).items()), exact_version())
    return cache_folder(FOLDER) / hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _write(file: GgufFile, config: JsonObject, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(dict(config), indent=1), "utf-8")
    if generation := generation_config_of(file):
        (folder / "generation_config.json").write_text(json.dumps(generation), "utf-8")
    write_tokenizer(file.path, file.metadata, folder)
    licence = file.metadata.get("general.license")
    if isinstance(licence, str) and _LICENCE.fullmatch(licence):
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n", "utf-8")
    (folder / _WHOLE).touch()


def _published(partial: Path, folder: Path) -> Path:
    """Give the folder its name; where another process was faster, its folder is the same."""
    if partial == folder:
        return folder
    try:
        partial.rename(folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
    with contextlib.suppress(OSError):
        entries = sorted(folder.parent.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in entries[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
    return folder
