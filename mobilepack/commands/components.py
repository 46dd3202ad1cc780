"""The parts of a decoder that people ask about, by the names of its parameters."""

from __future__ import annotations

COMPONENTS = {
    "embedding": ("embed.", "positions.", "project_"),
    "attention": (".q.", ".k.", ".v.", ".o."),
    "feed-forward": (".gate.", ".up.", ".down."),
    "norms": ("norm.",),
    "output head": ("head.",),
}


def component_of(parameter: str) -> str:
    """Return the component that a decoder's parameter belongs to."""
    if parameter.endswith("norm.weight"):
        return "norms"
    for name, marks in COMPONENTS.items():
        if any(mark in parameter for mark in marks):
            return name
    raise LookupError(parameter)
