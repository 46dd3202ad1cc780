"""app ios, and deploy to simulators and iPhones."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilepack.commands.app import (
    APPLICATION_ID,
    AppOptions,
    WrittenApp,
    bundle,
    check_free,
    copied_aside,
    rename,
)
from mobilepack.commands.app_files import PROMPT, prompt_template
from mobilepack.contract.package import MANIFEST, Package, open_package
from mobilepack.errors import UsageError
from mobilepack.harness.android.app_folder import Deployed
from mobilepack.harness.ios.harness import AppHarness

FOLDER = "package"
"""Beside project.yml; it becomes a folder of the app's bundle."""

SCHEME = "MobilepackDemo"
_PROJECT = "project.yml"
_BUNDLE_ID = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)
OnPush = Callable[[str, int], None]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # what ExecuTorch's TextRunner reads


def ios_app(options: AppOptions) -> WrittenApp:
    """Write an XcodeGen project, whole or not at all.

    Raises:
        UsageError: The folder holds something, the id is none, or the app cannot chat with the
            package.
        MissingError: There is no package where one was named.
    """
    if not _BUNDLE_ID.fullmatch(options.application_id):
        raise UsageError(
            "application-id",
            f"no app can have the id {options.application_id!r}",
            why="it takes two or more words of ASCII letters, digits and -, joined by dots",
            next="--application-id com.example.chat",
        )
    check_free(options.out)
    bundled: dict[str, int] = {}
    aside = copied_aside("ios_demo", options.out)
    try:
        _rename_app(aside / _PROJECT, options.application_id)
        if options.package is not None:
            with ios_files(open_package(options.package)) as files:
                bundled = bundle(files, aside / FOLDER)
        rename(aside, options.out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return WrittenApp(options.out, SCHEME, options.application_id, bundled)


def _rename_app(project: Path, application_id: str) -> None:
    key = "PRODUCT_BUNDLE_IDENTIFIER: "
    text = project.read_text("utf-8")
    project.write_text(text.replace(key + APPLICATION_ID, key + application_id), "utf-8")


@contextlib.contextmanager
def ios_files(package: Package) -> Iterator[Mapping[str, Path]]:
    """Give the files that ios_demo's chat reads, by their path below its package folder.

    Raises:
        UsageError: The chat cannot run the package, or its chat template is broken.
    """
    backend = package.manifest.plan.backend
    if backend != "xnnpack":
        coreml = "mobilepack verify PACKAGE -d UDID runs it in the app"
        raise UsageError(
            "not-for-this-chat",
            f"the app cannot chat with {package.root}",
            why=f"its program is for {backend}; ExecuTorch's TextRunner takes a .pte with one "
            "method of any length",
            next=coreml if backend == "coreml" else "build one: mobilepack build --target xnnpack",
        )
    files = {"model.pte": package.program}
    files |= {name: package.root / name for name in _TOKENIZERS if package.lists(name)}
    files[MANIFEST] = package.root / MANIFEST
    with tempfile.TemporaryDirectory(prefix="mobilepack-app-") as folder:
        prompt = prompt_template(package.root)
        if prompt is not None:
            files[PROMPT] = Path(folder) / PROMPT
            files[PROMPT].write_text(prompt, "utf-8")
        yield files


@dataclass(frozen=True, slots=True)
class ApplePlace:
    """ios_demo on a simulator or an iPhone."""

    harness: AppHarness

    @property
    def serial(self) -> str:
        """The device's UDID."""
        return self.harness.device.id

    def deploy(self, package: Package, on_push: OnPush = lambda name, size: None) -> Deployed:
        """See `commands.deploy.Place`."""
        with ios_files(package) as files:
            pushed = self.harness.deploy(files, on_push)
        kept = tuple(name for name in files if name not in pushed)
        return Deployed(self.serial, pushed=pushed, copied=(), kept=kept, removed=())
