"""Programs of small networks with random weights, run by our interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mobilepack.backends.coreml.decoder import Form
from mobilepack.backends.coreml.package import Wanted, Written, write_packages
from mobilepack.contract.manifest import StaticForm
from mobilepack.mil.bind import Rounding
from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.static import windows_of
from mobilepack.models.static_session import StaticSession
from tests.models.networks import RandomWeights

PAST, PREFILL = 40, 8
MASK = -4e4


def wanted(linear: str = "fp16", **changes: Any) -> Wanted:
    states = changes.pop("states", False)
    fields: dict[str, Any] = {
        "opset": "CoreML8",
        "linear": linear,
        "group": 8 if linear == "4p" else 0,
        "prefill_tokens": PREFILL,
        "form": Form(PAST, PAST, states),
        "limit_bytes": 1_000_000_000,
        "functions": True,
    }
    return Wanted(**(fields | changes))


class Packages:
    """The packages of a network, behind a session."""

    def __init__(
        self,
        spec: DecoderSpec,
        weights: RandomWeights,
        folder: Path,
        how: Wanted,
        rounding: Rounding = "declared",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.spec, self.how = spec, how
        self.written: Written = write_packages(spec, weights, how, folder)
        self.programs = {
            name: Interpreter(open_mlpackage(folder / name), rounding)
            for name in self.written.packages
        }

    def session(self) -> StaticSession:
        form = StaticForm(
            past=PAST,
            prefill_tokens=PREFILL,
            mask_value=MASK,
            windows=windows_of(self.spec),
            keys="positions_first",
            states=self.how.form.states,
        )
        state: dict[str, torch.Tensor] = {}
        methods = {method.name: method for method in self.written.methods}
        for call in methods["decode"].calls:
            state |= self.programs[call.program].new_state(call.function)

        def run(name: str, inputs: Sequence[Any]) -> list[Any]:
            method = methods[name]
            known = dict(zip((t.name for t in method.inputs), inputs, strict=True))
            for call in method.calls:
                given = {key: known[key] for key in call.inputs}
                made = self.programs[call.program].run(given, call.function, state=state)
                known |= {key.removeprefix("new_"): value for key, value in made.items()}
            return [known[t.name].numpy() for t in method.outputs]

        return StaticSession(form, self.written.methods, run)
