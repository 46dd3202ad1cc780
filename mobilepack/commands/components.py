"""The parts of a decoder that people ask about, by the names of its parameters."""

from __future__ import annotations

from mobilepack.models.spec import ATTENTIONS, DecoderSpec

COMPONENTS = {
    "embedding": ("embed.", "positions.", "project_"),
    "attention": (".q", ".k", ".v"),
    "recurrence": (".in_", ".conv", ".dt_bias.", ".a_log.", ".d.", "_gate.", ".recurrent_param."),
    "feed-forward": (".gate.", ".up.", ".down.", ".shared_"),
    "experts": (".router.", ".experts_"),
    "norms": ("norm.",),
    "output head": ("head.",),
}


def component_of(parameter: str, spec: DecoderSpec) -> str:
    """Return the component that a decoder's parameter belongs to."""
    if parameter.endswith("norm.weight"):
        return "norms"
    if ".shared_" in parameter:
        return "feed-forward"
    if ".experts_" in parameter:
        return "experts"
    if ".o." in parameter:
        mixer = spec.layers[int(parameter.split(".")[1])].mixer
        return "attention" if isinstance(mixer, ATTENTIONS) else "recurrence"
    for name, marks in COMPONENTS.items():
        if any(mark in parameter for mark in marks):
            return name
    raise LookupError(parameter)
