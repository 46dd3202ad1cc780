"""Likely causes of an operator's wrong result, each tried on the numbers before it is named."""

from mobilepack.models.causes.evidence import Cause, Evidence, Observation
from mobilepack.models.causes.find import find_cause

__all__ = ["Cause", "Evidence", "Observation", "find_cause"]
