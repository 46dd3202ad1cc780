"""What feeds a program of the static form must give it, in any language: the same as Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mobilepack.contract.manifest import Encoding, Method, StaticForm, TensorSpec
from mobilepack.models.static_session import StaticSession

PAST, PREFILL, HEADS, CHANNELS, VOCAB = 12, 4, 2, 3, 61
CALLS = (
    (0, (5, 9, 2, 7)), (4, (1,)), (5, (3, 8)), (7, (6, 6, 6)), (10, (4,)), (9, (2, 1, 0)),
    (12, (7,)), (3, (8, 9, 10, 11)), (0, (1,)),
)  # fmt: skip
IN_STATES = tuple(call for call in CALLS if call[0] + len(call[1]) <= PAST)
Encodings = dict[str, Encoding]
Said = Callable[[str, Sequence[tuple[int, Sequence[int]]]], subprocess.CompletedProcess[str]]

MIXED: Encodings = {
    **{name: Encoding(scale=0.0137, zero_point=128) for name in ("k_0", "v_0")},
    **{name: Encoding(scale=0.031, zero_point=93) for name in ("k_1", "v_1")},
    **{name: Encoding(scale=40000 / 65535, zero_point=65535) for name in ("mask", "mask_5")},
    "logits": Encoding(scale=7.7e-4, zero_point=30001),
}

BYTES: Encodings = {name: code for name, code in MIXED.items() if name[0] in "kv"}
LONG: Encodings = {
    **{name: Encoding(scale=0.0137, zero_point=-(10**6)) for name in ("k_0", "k_1", "v_0")},
    "logits": Encoding(scale=7.7e-9, zero_point=2**30 + 1),
}


def form_of(**changes: Any) -> StaticForm:
    return StaticForm(
        past=PAST, prefill_tokens=PREFILL, mask_value=-4e4, windows=(0, 5)
    ).model_copy(update=changes)


def methods_of(
    form: StaticForm, kinds: dict[str, str], encodings: Encodings, extra: int = 0
) -> tuple[Method, ...]:
    """Return both methods of two layers; `extra` ids and columns that nothing needs."""

    def spec(name: str, *shape: int) -> TensorSpec:
        known = kinds.get(name, kinds.get(name[0], "float32"))
        return TensorSpec(name=name, dtype=known, shape=shape, encoding=encodings.get(name))

    def cache(name: str, places: int) -> TensorSpec:
        columns = name[0] == "k" and form.keys == "channels_first"
        inner = (CHANNELS, places) if columns else (places, CHANNELS)
        return spec(name, 1, HEADS, *inner)

    names = [f"{kind}_{layer}" for layer in range(2) for kind in "kv"]
    methods = []
    for method, width in (("decode", 1), ("prefill", PREFILL)):
        columns = form.past + extra + (0 if form.states else width)
        ids = [
            TensorSpec(name=name, dtype="int32", shape=(1, width + extra))
            for name in ("tokens", "positions")
        ]
        masks = [spec(name, 1, 1, width, columns) for name in ("mask", "mask_5")]
        held = [spec("write", 1, 1, width, form.past)] if form.states else []
        held += [] if form.states else [cache(name, form.past) for name in names]
        made = [] if form.states else [cache(name, width) for name in names]
        outputs = (spec("logits", 1, 1, VOCAB), *made)
        methods.append(Method(name=method, inputs=(*ids, *masks, *held), outputs=outputs))
    return tuple(methods)


def manifest_of(form: StaticForm, methods: Sequence[Method]) -> str:
    document = {"static": form.model_dump(), "methods": [m.model_dump() for m in methods]}
    return json.dumps({"schema": "mobilepack/manifest/1", **document})


def arithmetic(
    form: StaticForm, methods: Sequence[Method], calls: Sequence[tuple[int, Sequence[int]]]
) -> list[str]:
    """Return what Python gives the methods of static_session_main.cpp, and their logits."""
    lines: list[str] = []
    number = iter(range(len(calls)))

    def run(name: str, inputs: Sequence[Any]) -> list[Any]:
        lines.append(name)
        lines.extend(np.ascontiguousarray(array).tobytes().hex() for array in inputs)
        specs, call = next(m for m in methods if m.name == name).outputs, next(number)
        values = [(7 * np.arange(np.prod(s.shape)) + 13 * n + 5 * call) % 120
                  for n, s in enumerate(specs)]  # fmt: skip
        return [v.astype(s.dtype).reshape(s.shape) for v, s in zip(values, specs, strict=True)]

    session = StaticSession(form, methods, run)
    for at, ids in calls:
        logits = session(np.array(ids, dtype=np.int64), at)
        lines.append(logits.astype(np.float32).tobytes().hex())
    return lines


FORMS: dict[str, tuple[dict[str, Any], dict[str, str], Encodings, int]] = {
    "float32": ({}, {}, {}, 0),
    "float16": ({}, dict.fromkeys(("k", "v", "mask", "mask_5", "logits"), "float16"), {}, 0),
    "integers": (
        {},
        {"k": "uint8", "v": "uint8", "mask": "uint16", "mask_5": "uint16", "logits": "uint16"},
        MIXED,
        0,
    ),
    "signed": (
        {},
        {"k": "int8", "v": "int8", "mask": "int16", "mask_5": "int8", "logits": "int16"},
        {
            **dict.fromkeys(("k_0", "v_0", "k_1", "v_1"), Encoding(scale=0.02, zero_point=-3)),
            **dict.fromkeys(("mask", "mask_5"), Encoding(scale=1.3, zero_point=5)),
            "logits": Encoding(scale=1e-3, zero_point=-17),
        },
        0,
    ),
    "caches in integers": ({}, {"k": "uint8", "v": "uint8"}, BYTES, 0),  # as a QNN package has it
    "long": ({}, {"k": "int64", "v": "int32", "logits": "int32"}, LONG, 0),
    "positions first": ({"keys": "positions_first"}, {}, {}, 0),
    "wider than it needs": ({}, {}, {}, 3),
    "states": ({"states": True}, {}, {}, 0),
    "states in float16": ({"states": True}, {"write": "float16", "mask": "float16"}, {}, 2),
}


def _set(path: str, value: Any) -> Callable[[Any], None]:
    """Return what puts a value at `a.0.b` of a document; `...` takes the field away."""

    def change(document: Any) -> None:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            document = document[step]
        if value is ...:
            del document[last]
        else:
            document[last] = value

    return change


WRONG: list[tuple[str, Any, str]] = [
    ("static", 3, "static: past is missing"),
    ("static.past", ..., "static: past is missing"),
    ("static.past", "many", "static: past must be an integer"),
    ("static.prefill_tokens", 0, "static: prefill_tokens must be an integer"),
    ("static.prefill_tokens", 2**40, "static: its lengths are no lengths"),
    ("static.mask_value", ..., "static: mask_value is missing"),
    ("static.mask_value", 1.0, "static: mask_value must be below 0"),
    ("static.windows", ..., "static: windows is missing"),
    ("static.windows", [0], "prefill: mask_5: there is no such window in static.windows"),
    ("static.keys", "first", "static: keys is 'first'"),
    ("static.states", 1, "static: states must be true or false"),
    ("static.states", True, "k_0: the program keeps its cache in states, and takes it too"),
    ("methods", ..., "methods is missing"),
    ("methods", 3, "methods must be a list"),
    ("methods", [], "methods: there is no method prefill"),
    ("methods.0.name", "other", "methods: there is no method decode"),
    ("methods.0.inputs", ..., "decode: inputs is missing"),
    ("methods.0.inputs.0", 3, "decode: inputs: a tensor has no name"),
    ("methods.0.inputs.0.name", "ids", "decode: ids: the static form knows no such input"),
    ("methods.0.inputs.0.dtype", "float64", "tokens: dtype is 'float64', known are float32"),
    ("methods.0.inputs.0.dtype", "float32", "decode: tokens: its dtype must be int32"),
    ("methods.0.inputs.0.shape", [2, 1], "decode: tokens: its shape is not of the form"),
    ("methods.1.inputs.1.shape", [1, 3], "prefill: positions: its shape is not of the form"),
    ("methods.0.inputs.0.shape", [1, 0], "shape holds what is no valid number"),
    ("methods.0.inputs.0.shape", [1, 2**30, 2**30], "its shape holds too many numbers"),
    ("methods.1.inputs.2.shape", [1, 1, 4, 15], "prefill: mask: its shape is not of the form"),
    ("methods.1.inputs.2.dtype", "uint8", "mask: a mask of integers needs an encoding"),
    ("methods.1.inputs.2.name", "masked", "masked: there is no such window"),
    ("methods.1.inputs.4.encoding", {"scale": 1, "zero_point": 0}, "encoding is for integers"),
    ("methods.1.inputs.4.shape", [1, 2, 4, 12], "prefill: k_0: its shapes are not of the form"),
    ("methods.1.inputs.4.shape", [1, 2, 3, 11], "prefill: k_0: its shapes are not of the form"),
    ("methods.1.inputs.4.shape", [1, 2, 3, 13], "prefill and decode have other caches"),
    ("methods.1.inputs.4.dtype", "float16", "k_0: what goes in and what comes out differ in dtype"),
    ("methods.1.inputs.4.name", "k_9", "prefill: k_9: prefill has no output k_9"),
    ("methods.1.outputs.2.shape", [1, 2, 3], "v_0: what goes in and what comes out differ in rank"),
    ("methods.1.outputs.2.shape", [1, 2, 3, 3], "prefill: v_0: its shapes are not of the form"),
    ("methods.1.outputs.0.name", "logit", "prefill: prefill has no output logits"),
    ("methods.1.inputs.0", {"name": "positions", "dtype": "int32", "shape": [1, 4]},
     "prefill: it takes no tokens"),
]  # fmt: skip


class StaticContract:
    """Tests of a fixture `said`, a `Said`.

    Attributes:
        unknown: By form, the first type of its tensors that is refused.
    """

    unknown: Mapping[str, str]

    @pytest.mark.parametrize("kind", FORMS)
    def test_it_is_given_what_python_gives_it(self, kind: str, said: Said) -> None:
        """Ids, positions, masks, the cache as earlier calls left it; and the logits in return."""
        changes, kinds, encodings, extra = FORMS[kind]
        form = form_of(**changes)
        methods = methods_of(form, kinds, encodings, extra)
        calls = IN_STATES if form.states else CALLS
        done = said(manifest_of(form, methods), calls)
        if kind in self.unknown:
            assert done.returncode == 1
            assert f": dtype is '{self.unknown[kind]}', known are float32, " in done.stdout
            return
        assert done.returncode == 0, done.stdout[-300:]
        found, expected = done.stdout.splitlines(), arithmetic(form, methods, calls)
        assert len(found) == len(expected)
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert ours == theirs, f"line {number} of {kind}"

    @pytest.mark.parametrize(
        ("states", "position", "count"),
        [(False, 0, 5), (False, 13, 1), (False, 13, 3), (True, 12, 1), (True, 10, 3), (True, 0, 5)],
    )
    def test_what_does_not_fit_is_refused_in_python_s_words(
        self, states: bool, position: int, count: int, said: Said
    ) -> None:
        form = form_of(states=states)
        methods = methods_of(form, {}, {})
        done = said(manifest_of(form, methods), [(position, (1,) * count)])
        with pytest.raises(ValueError, match="do not fit") as caught:
            arithmetic(form, methods, [(position, (1,) * count)])
        assert (done.returncode, done.stdout) == (1, f"{caught.value}\n")

    @pytest.mark.parametrize(("path", "value", "why"), WRONG, ids=lambda x: str(x)[:40])
    def test_a_wrong_manifest_is_one_error_that_says_where(
        self, path: str, value: Any, why: str, said: Said
    ) -> None:
        form = form_of()
        document = json.loads(manifest_of(form, methods_of(form, {}, {})))
        _set(path, value)(document)
        done = said(json.dumps(document), [(0, (1,))])
        assert done.returncode == 1, done.stderr
        assert done.stdout.startswith("manifest.json: ")
        assert why in done.stdout

    @pytest.mark.parametrize(
        ("encoding", "why"),
        [
            ({"zero_point": 1}, "scale is missing"),
            ({"scale": 0, "zero_point": 1}, "scale must be above 0"),
            ({"scale": 1e-300, "zero_point": 1}, "scale must be above 0"),
            ({"scale": "1", "zero_point": 1}, "scale must be a number"),
            ({"scale": 1.0}, "zero_point is missing"),
            ({"scale": 1.0, "zero_point": 256}, "zero_point is no number of its dtype"),
            ({"scale": 1.0, "zero_point": -1}, "zero_point is no number of its dtype"),
            (3, "scale is missing"),
        ],
    )
    def test_a_wrong_encoding_is_one_too(self, encoding: Any, why: str, said: Said) -> None:
        form = form_of()
        document = json.loads(manifest_of(form, methods_of(form, {"k": "uint8"}, {})))
        document["methods"][1]["inputs"][4]["encoding"] = encoding
        done = said(json.dumps(document), [(0, (1,))])
        assert done.returncode == 1
        assert f"manifest.json: methods: prefill: inputs: k_0: {why}" in done.stdout

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"static": null}', "\x00\xff", "{}"])
    def test_what_is_no_static_manifest_is_no_crash(self, text: str, said: Said) -> None:
        done = said(text, [(0, (1,))])
        assert (done.returncode, done.stderr) == (1, "")
