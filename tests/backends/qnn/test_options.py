"""The options of a delegate, as ExecuTorch writes them."""

from __future__ import annotations

import itertools

import pytest

from mobilepack.backends.qnn.compile import specification
from mobilepack.backends.qnn.options import Options, serialised
from mobilepack.soc import soc_models


@pytest.mark.slow  # imports all of executorch.exir
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of ExecuTorch's own imports
def test_options_are_those_that_executorch_writes() -> None:
    for soc, half, shared in itertools.product(soc_models(), (False, True), (False, True)):
        options = Options(soc, half, shared)
        (theirs,) = specification(options)
        assert serialised(options) == bytes(theirs.value), options
