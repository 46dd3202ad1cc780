"""ExecuTorch's options of a QNN delegate, without what importing `executorch.exir` loads."""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.backends.executorch import without_package_init


@dataclass(frozen=True, slots=True)
class Options:
    """How programs are compiled.

    Attributes:
        soc_model: As `SM8650`.
        half: The HTP computes in half precision, else in the integers of the graph.
        share_weights: Methods share one copy of the weights; the emulator cannot load that.
    """

    soc_model: str
    half: bool
    share_weights: bool = False


def serialised(options: Options) -> bytes:
    """Return what ExecuTorch's `generate_qnn_executorch_compiler_spec` gives for the same (1.5.1).

    Raises:
        KeyError: ExecuTorch does not know the SoC.
    """
    with without_package_init(("executorch.exir",)):
        from executorch.backends.qualcomm.serialization import qc_schema as qc
        from executorch.backends.qualcomm.serialization.qc_schema_serialize import (
            option_to_flatbuffer,
        )
    precision = qc.QnnExecuTorchHtpPrecision
    htp = qc.QnnExecuTorchHtpBackendOptions(
        precision=precision.kHtpFp16 if options.half else precision.kHtpQuantized,
        performance_mode=qc.QnnExecuTorchHtpPerformanceMode.kHtpBurst,
        use_weight_sharing=options.share_weights,
    )
    backend = qc.QnnExecuTorchBackendOptions(
        backend_type=qc.QnnExecuTorchBackendType.kHtpBackend, htp_options=htp
    )
    made = qc.QnnExecuTorchOptions(
        qc._soc_info_table[qc.QcomChipset[options.soc_model]],
        backend,
        log_level=qc.QnnExecuTorchLogLevel.kLogLevelError,
    )
    flatbuffer: bytes = option_to_flatbuffer(made)
    return flatbuffer
