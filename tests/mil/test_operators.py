"""Every operator against coremltools' own numpy evaluation of it, with random shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mil import cases_shape, cases_sums
from tests.mil.cases import CASES, Case
from tests.mil.single import ours, theirs

pytestmark = pytest.mark.slow  # importing coremltools costs 6 CPU-seconds
MODULES = (cases_shape, cases_sums)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")  # numpy's own, inside coremltools
def test_an_operator_gives_what_coremltools_computes(case: Case, data: Any) -> None:
    call = case.make(data.draw)
    expected = theirs(call)
    results = ours(call, [(array.shape, dtype) for array, dtype in expected])
    for result, (array, _) in zip(results, expected, strict=True):
        assert result.shape == array.shape
        wanted = array.astype("f8")
        error = np.abs(result.astype("f8") - wanted)
        assert np.all((error <= case.bound(call, array)) | (result == wanted)), (
            call,
            float(error.max()),
        )
