"""What quantisation costs, layer by layer, where it costs more than the target allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobilepack.commands.bisect import distance
from mobilepack.commands.verify import Ladder
from mobilepack.contract.explanation import Explanation, Growth
from mobilepack.models.graph import arguments, parameter_names
from mobilepack.models.layers import node_groups, operator_name
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.reference import quantisation_of

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

_REMEDY = (
    "choose a finer recipe: --group-size 32, --embedding 8w, --calibrate gptq, or --linear fp32"
)
_REMEDY += " to see what the lowering alone costs"


def quantisation_loss(ladder: Ladder, model: LoadedModel, blank: Explanation) -> Explanation:
    """Compare eager quantised with eager fp32 on the first passage, layer by layer.

    The operator that is named is the linear map whose own rounding costs most: its result on its
    rounded inputs and weights against the exact product of the same inputs.
    """
    from mobilepack.models.exported_session import ExportedSession
    from mobilepack.models.observed import observed
    from mobilepack.models.streaming import FP32, Lane
    from mobilepack.models.tables import make_tables

    plan = ladder.package.manifest.plan
    if plan.backend != "xnnpack":
        text = "the recipe's rounding costs more than the target allows, before anything is lowered"
        found = {"outcome": "found", "stage": "quantisation", "cause": "coarse-recipe"}
        return blank.model_copy(update={**found, "text": text, "remedy": _REMEDY})
    exported = export_decoder(model.spec, plan.max_seq_len, plan.prefill_chunk)
    tables = make_tables(model.spec, plan.max_seq_len)
    ids = ladder.reference.index.sequences[0].token_ids[: plan.prefill_chunk]
    quantised = quantisation_of(plan.recipe)
    groups = node_groups(exported)
    lanes = [Lane(ids), Lane(ids, quantised)]
    lasts = [group.last for group in groups]
    seen = observed(exported, model.weights, tables, lanes, lasts)
    growth = tuple(
        Growth(
            layer=group.name, error=distance(seen[group.last][1], seen[group.last][0]), limit=0.0
        )
        for group in groups
    )
    names = parameter_names(exported)
    exact = ExportedSession(exported, model.weights, tables, FP32)
    worst: list[tuple[float, Node]] = []
    values: dict[Node, torch.Tensor] = {}

    def watch(node: Node, value: torch.Tensor) -> None:
        values[node] = value
        if operator_name(node) == "linear":
            weight = exact.weight(names[arguments(node)[1].name])
            product = values[arguments(node)[0]] @ weight.T
            if (*arguments(node), None)[2] is not None:
                product = product + model.weights.tensor(names[arguments(node)[2].name])
            worst.append((distance(value, product), node))

    session = ExportedSession(exported, model.weights, tables, quantised)
    session(np.array(ids, dtype=np.int64), 0, watch)
    error, node = max(worst, key=lambda pair: pair[0])
    name = names[arguments(node)[1].name]
    layer = next(group.name for group in groups if node in group.nodes)
    text = f"rounding alone costs this much; most of all in {name}, whose result moves by"
    text += f" {100 * error:.1f} % of its size"
    return blank.model_copy(
        update={
            "outcome": "found",
            "stage": "quantisation",
            "layer": layer,
            "operator": "linear",
            "parameter": name,
            "error": error,
            "growth": growth,
            "cause": "coarse-recipe",
            "text": text,
            "remedy": _REMEDY,
        }
    )
