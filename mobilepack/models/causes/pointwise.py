"""What goes wrong with activations, norms, sums and products."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mobilepack.models.causes.evidence import Cause, Evidence, Hypotheses, Hypothesis
from mobilepack.models.graph import arguments
from mobilepack.models.operators import ACTIVATIONS

_KERNEL = "the lowering writes another operator: look at backends/xnnpack/rules.py, and at what the"
_KERNEL += " family's config says (`hidden_act`)"
_NORM = "look at the norm's epsilon and weight in the family (families/*.py) and at rules_norm.py"

_FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "GELU in its erf form": ACTIVATIONS["gelu"],
    "GELU in its tanh form": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "GELU as x * sigmoid(1.702 x)": ACTIVATIONS["gelu_quick"],
    "SiLU": ACTIVATIONS["silu"],
    "ReLU": ACTIVATIONS["relu"],
    "squared ReLU": ACTIVATIONS["relu2"],
    "nothing (its input)": lambda x: x,
}


def activation(evidence: Evidence) -> Hypotheses:
    """Yield what every other activation would have computed."""
    x, expected = evidence.input(0), evidence.expected
    wanted = min(_FORMS, key=lambda name: float((_FORMS[name](x) - expected).square().sum()))
    for name, form in _FORMS.items():
        if name != wanted:
            text = f"it computes {name}, and the model has {wanted}"
            yield Hypothesis(Cause("wrong-activation", text, _KERNEL), form(x))


def norm(evidence: Evidence) -> Hypotheses:
    """Yield what a norm computes without its weight, with another epsilon, or of the other kind."""
    x, expected = evidence.input(0), evidence.expected
    weight = next((c for n, c in evidence.constants.items() if n.endswith("weight")), None)
    scale = torch.ones(x.shape[-1]) if weight is None else weight
    for eps in (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-3):
        text = f"its epsilon is {eps:g}"
        rms = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * scale
        yield Hypothesis(Cause("wrong-epsilon", text, _NORM), rms)
    eps = next((float(a) for a in arguments(evidence.node) if isinstance(a, float)), 1e-5)
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    yield Hypothesis(Cause("missing-weight", "its weight is not multiplied in", _NORM), plain)
    more = Cause("weight-plus-one", "it multiplies by 1 + weight, or lacks that 1", _NORM)
    yield Hypothesis(more, plain * (1 + scale))
    yield Hypothesis(more, plain * (scale - 1))
    centred = x - x.mean(-1, keepdim=True)
    layer = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps) * scale
    yield Hypothesis(
        Cause("wrong-norm", "it removes the mean, which an RMS norm leaves", _NORM), layer
    )
    if evidence.weight is None and expected.shape == plain.shape:
        yield Hypothesis(Cause("missing-norm", "it gives its input unchanged", _NORM), x)


def combination(evidence: Evidence) -> Hypotheses:
    """Yield what a sum or product of two values is without one of them."""
    remedy = (
        "an operand is lost or read too late: look at the segment's inputs (segments.py) and at"
    )
    remedy += " the memory plan (memory.py)"
    for index in range(len(evidence.observations[0].inputs)):
        text = f"it gives its operand {index} alone"
        value = evidence.input(index)
        if value.shape == evidence.expected.shape:
            yield Hypothesis(Cause("lost-operand", text, remedy), value)
