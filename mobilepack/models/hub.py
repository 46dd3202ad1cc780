"""Checkpoints on the Hugging Face hub, fetched into huggingface_hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mobilepack.errors import MissingError, MobilepackError, UsageError

# Everything a build reads before the weights. Never *.bin or *.pt: a pickle can run code.
# README.md is fetched for the licence that its front matter names.
SMALL_FILES = (
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "merges.txt",
    "*.tiktoken",
    "tiktoken.model",
    "LICEN[CS]E*",
    "NOTICE*",
    "COPYING*",
    "README.md",
)
# `*` matches slashes in these patterns, so sub-folders (onnx/, original/) are left out by name;
# `consolidated*` is a second copy of the weights in Mistral's repositories.
NEVER = ("*/*", "consolidated*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str) -> bool:
    """Tell whether a text has the form owner/name of a hub repository."""
    return _HUB_ID.fullmatch(source) is not None


def fetch(
    repo: str, revision: str | None, *, offline: bool, check: Callable[[Path], object]
) -> tuple[Path, str]:
    """Fetch a checkpoint's folder: the small files first, the weights once `check` accepts them.

    Args:
        repo: Id of the form owner/name.
        revision: Branch, tag or commit; None is the default branch.
        offline: Look into the cache only.
        check: Raises a MobilepackError if the folder's config cannot be built.

    Returns:
        The snapshot's folder in the cache and its commit.

    Raises:
        MissingError: The repository, the revision or the network is not there.
    """
    folder = _snapshot(repo, revision, offline, SMALL_FILES)
    check(folder)
    # The commit is what the first call resolved: a push in between cannot mix two versions.
    _snapshot(repo, folder.name, offline, (*SMALL_FILES, "*.safetensors"))
    return folder, folder.name


def _snapshot(repo: str, revision: str | None, offline: bool, allow: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(
            repo,
            revision=revision,
            local_files_only=offline,
            allow_patterns=list(allow),
            ignore_patterns=list(NEVER),
        )
    # The library and its transport raise a dozen unrelated classes, which change by version;
    # whatever it is, the checkpoint could not be fetched.
    except Exception as err:
        raise _explain(repo, revision, offline, err) from err
    return Path(path)


def _explain(repo: str, revision: str | None, offline: bool, err: Exception) -> MobilepackError:
    what = f"cannot fetch {repo!r} from the Hugging Face hub"
    chain = (type(err), *([type(err.__cause__)] if err.__cause__ else []))
    kinds = {cls.__name__ for kind in chain for cls in kind.__mro__}
    if "HFValidationError" in kinds:
        return UsageError(
            "invalid-hub-id", what, why=_first_line(err), next="write it as owner/name"
        )
    code, next_step = _diagnosis(kinds, repo, revision, offline)
    return MissingError(code, what, why=_first_line(err), next=next_step)


def _diagnosis(kinds: set[str], repo: str, revision: str | None, offline: bool) -> tuple[str, str]:
    url = f"https://huggingface.co/{repo}"
    if "GatedRepoError" in kinds:
        return "hub-gated", f"accept the terms at {url}, then run: hf auth login"
    if "RepositoryNotFoundError" in kinds:
        return (
            "hub-not-found",
            f"check the name at {url} (a private one needs: hf auth login), "
            f"or give the path of a local folder; ./{repo} does not exist",
        )
    if "RevisionNotFoundError" in kinds:
        return "hub-no-revision", f"choose a revision listed at {url}/tree/main; not {revision!r}"
    if "OfflineModeIsEnabled" in kinds:
        return "hub-not-cached", "unset HF_HUB_OFFLINE, or give the path of a local folder"
    if offline:
        return "hub-not-cached", "run once without --offline, or give the path of a local folder"
    if "LocalEntryNotFoundError" in kinds:
        return "hub-unreachable", "check the network, or give the path of a local folder"
    return "hub-failed", "try again; a partial download continues where it stopped"


def _first_line(err: Exception) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return f"{type(err).__name__}: {lines[0]}" if lines else type(err).__name__
