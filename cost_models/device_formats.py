"""The format in which a device multiplies a model's weights, where it lacks the model's own."""

from dataclasses import replace

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm.spec import LLMSpec


def as_run(llm: LLMSpec, hardware: HardwareSpec) -> LLMSpec:
    """Return ``llm`` with the GEMM format that ``hardware`` runs its weights in.

    FP8 weights on a GPU without FP8 units are expanded to 16 bits by the kernel: they stay as small
    as they are and multiply at the 16-bit rate. Other formats are left alone; one without a peak is
    refused where it is priced (`HardwareSpec.peak`).
    """
    precision = llm.precision
    wanted = precision.quantized_gemm_format
    if wanted in hardware.peak_flops or wanted not in hardware.expanded_formats:
        return llm
    run = hardware.expanded_formats[wanted]
    return replace(llm, precision=replace(precision, quantized_gemm_format=run))


def precision_notes(llm: LLMSpec, hardware: HardwareSpec) -> tuple[str, ...]:
    """Return what a result must say about the precision: what the spec says and how it is run."""
    wanted = llm.precision.quantized_gemm_format
    run = as_run(llm, hardware).precision.quantized_gemm_format
    if run == wanted:
        return llm.notes
    source = hardware.sources[f"expanded_formats.{wanted}"]
    return (
        *llm.notes,
        f"{hardware.name} has no {wanted} units: {llm.name} is priced with {run} kernels "
        f"({source})",
    )
