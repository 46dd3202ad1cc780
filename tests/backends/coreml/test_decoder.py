"""Our own Core ML programs compute what the decoder does, for every family of plain blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobilepack.models.decoder import with_weights
from tests.backends.coreml.programs import PAST, Packages, wanted
from tests.matrix.cases import Case
from tests.models.networks import RandomWeights, feed, random_ids, relative_rms, tiny_spec
from tests.models.test_static import CALLS, PLAIN, _spec, statically

MAX_RMS_OVER_STD = 5e-3
"""Half precision: 8e-4 to 3.0e-3 over all cases; a wrong mask or layout gives 0.1 and more."""


def rms(spec: Any, folder: Path, **how: Any) -> float:
    weights = RandomWeights(spec)
    dynamic = with_weights(spec, PAST, weights)
    session = Packages(spec, weights, folder, wanted(**how)).session()
    worst = 0.0
    for seed in (0, 1):  # a second prompt over what the first left in the cache
        ids = random_ids(spec, sum(CALLS), seed)
        worst = max(worst, relative_rms(statically(session, ids, CALLS), feed(dynamic, ids, CALLS)))
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_a_family_computes_what_its_dynamic_form_does(case: Case, tmp_path: Path) -> None:
    assert rms(_spec(case), tmp_path) <= MAX_RMS_OVER_STD


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"states": True},
        {"opset": "CoreML9"},
        {"opset": "CoreML7", "functions": False},
        {"limit_bytes": 1},
        {"limit_bytes": 1, "opset": "CoreML7", "functions": False},
        {"limit_bytes": 1, "by_method": True},
    ],
    ids=["io", "states", "ios26", "ios17", "cut", "cut17", "cut by method"],
)
def test_a_form_computes_what_the_dynamic_form_does(how: dict[str, Any], tmp_path: Path) -> None:
    assert rms(tiny_spec("llama"), tmp_path, **how) <= MAX_RMS_OVER_STD
