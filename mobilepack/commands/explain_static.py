"""Explain programs in the static form: Core ML in the MIL interpreter, QNN on the HTP emulator."""

from __future__ import annotations

from mobilepack.commands.verify import Ladder
from mobilepack.contract.explanation import Explanation
from mobilepack.models.weights import LoadedModel


def explain_static(ladder: Ladder, model: LoadedModel, blank: Explanation) -> Explanation:
    """Compare one call."""
    return blank
