"""From exported or fake-quantised methods to a program, through ExecuTorch's own passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mobilepack.backends.qnn.options import Options

_DELEGATE = "executorch_call_delegate"


@dataclass(frozen=True, slots=True)
class Compiled:
    """What is known of a program.

    Attributes:
        delegates: Of all methods together.
        operators: Inside the delegates.
        fallback: Calls outside, by the operator's name.
    """

    delegates: int
    operators: int
    fallback: Mapping[str, int]


def compile_program(
    methods: Mapping[str, Any],
    inputs: Mapping[str, tuple[torch.Tensor, ...]],
    options: Options,
    quantised: Callable[[Any], torch.dtype | None] | None,
    metadata: Mapping[str, Any],
    path: Path,
) -> Compiled:
    """Lower methods and write one program.

    Args:
        methods: Graphs by the method's name.
        inputs: Example inputs.
        options: SoC and precision.
        quantised: Tells the type of an input or output node that stays quantised, None for all
            others; None where nothing is quantised.
        metadata: Constant methods.
        path: Where the program goes.
    """
    from executorch.backends.qualcomm._passes.build_quant_io import BuildQuantIo
    from executorch.backends.qualcomm.utils.utils import to_edge_transform_and_lower_to_qnn
    from executorch.devtools.backend_debug import get_delegation_info
    from executorch.exir.capture._config import ExecutorchBackendConfig

    compile_specs = specification(options)
    extra: dict[str, Any] = {} if quantised is None else _tagging(methods, quantised)
    edge = to_edge_transform_and_lower_to_qnn(
        dict(methods),
        dict(inputs),
        dict.fromkeys(methods, compile_specs),
        constant_methods=dict(metadata),
        **extra,
    )
    infos = [get_delegation_info(edge.exported_program(name).graph_module) for name in methods]
    fallback = Counter(
        str(node.target)
        for name in methods
        for node in edge.exported_program(name).graph.nodes
        if node.op == "call_function" and not _is_plumbing(node)
    )
    passes = [] if quantised is None else [BuildQuantIo()]
    program = edge.to_executorch(ExecutorchBackendConfig(passes=passes))
    with path.open("wb") as file:
        program.write_to_file(file)
    return Compiled(
        delegates=sum(info.num_delegated_subgraphs for info in infos),
        operators=sum(info.num_delegated_nodes for info in infos),
        fallback=dict(sorted(fallback.items())),
    )


def _is_plumbing(node: Any) -> bool:
    name = getattr(node.target, "__name__", str(node.target))
    return name == "getitem" or _DELEGATE in str(node.target)


def specification(options: Options) -> Any:
    """Return ExecuTorch's compile specification."""
    from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
    from executorch.backends.qualcomm.utils.utils import (
        generate_htp_compiler_spec,
        generate_qnn_executorch_compiler_spec,
    )

    return generate_qnn_executorch_compiler_spec(
        soc_model=QcomChipset[options.soc_model],
        backend_options=generate_htp_compiler_spec(
            use_fp16=options.half, use_weight_sharing=options.share_weights
        ),
    )


def _tagging(methods: Mapping[str, Any], quantised: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the pass jobs that leave inputs and outputs in their integers."""
    from executorch.backends.qualcomm._passes import TagQuantIO
    from executorch.backends.qualcomm._passes.qnn_pass_manager import get_qnn_pass_manager_cls
    from executorch.backends.qualcomm.utils.constants import (
        QCOM_PASS_ACTIVATE_KEY,
        QCOM_PASS_ARGS_KWARGS_DEFAULTS_KEY,
    )

    manager = get_qnn_pass_manager_cls()
    jobs = {name: manager.get_capture_program_passes() for name in methods}
    for job in jobs.values():
        job[TagQuantIO][QCOM_PASS_ACTIVATE_KEY] = True
        job[TagQuantIO][QCOM_PASS_ARGS_KWARGS_DEFAULTS_KEY]["get_quant_io_dtype_fn"] = quantised
    needed = {name: manager.get_passes_dependency_for_capture_program() for name in methods}
    return {"passes_job": jobs, "dep_table": needed}


def keep_quantised(masks: int) -> Callable[[Any], torch.dtype | None]:
    """Return what tells which inputs and outputs of the static form stay quantised: the caches.

    Args:
        masks: How many of the inputs after tokens and positions are masks.
    """
    from executorch.backends.qualcomm.builders.utils import is_graph_output

    def kind(node: Any) -> torch.dtype | None:
        value = node.meta.get("val")
        if node.op == "placeholder":
            if not node.name.startswith("rest_"):
                return None
            return None if int(node.name.removeprefix("rest_")) < masks else torch.uint8
        if isinstance(value, torch.Tensor) and is_graph_output(node):
            return None if value.dim() == 2 else torch.uint8  # logits are [1, vocabulary]
        return None

    return kind
