"""The format in which a device multiplies a model's weights if it lacks the model's own format."""

from dataclasses import replace

from bssim.cost_models.hardware.spec import HardwareSpec
from bssim.cost_models.llm import LLMSpec


def as_run(llm: LLMSpec, hardware: HardwareSpec) -> LLMSpec:
    """Return ``llm`` with the GEMM format that ``hardware`` runs its weights in.

    On a GPU without FP8 units, the kernel expands FP8 weights to 16 bits: they keep their size and
    multiply at the 16-bit rate. Other formats do not change; `HardwareSpec.peak` refuses a format
    without a peak when it is priced.
    """
    precision = llm.precision
    wanted = precision.quantized_gemm_format
    if wanted in hardware.peak_flops or wanted not in hardware.expanded_formats:
        return llm
    run = hardware.expanded_formats[wanted]
    return replace(llm, precision=replace(precision, quantized_gemm_format=run))


def precision_notes(llm: LLMSpec, hardware: HardwareSpec) -> tuple[str, ...]:
    """Return a result's notes on precision: those of the spec, and how the device runs it."""
    notes = llm.notes
    plain = llm.precision.activation_format
    if plain == "fp32" and hardware.flops_format != plain:
        notes = (
            *notes,
            f"float32 GEMMs and attention take the float32 peak of {hardware.name}, and the shares "
            f"of it that {hardware.flops_format} kernels reach of theirs",
        )
    wanted = llm.precision.quantized_gemm_format
    run = as_run(llm, hardware).precision.quantized_gemm_format
    if run == wanted:
        return notes
    source = hardware.sources[f"expanded_formats.{wanted}"]
    return (
        *notes,
        f"{hardware.name} has no {wanted} units: {llm.name} is priced with {run} kernels "
        f"({source})",
    )


def peak_flops(llm: LLMSpec, hardware: HardwareSpec) -> float:
    """Return the FLOP/s of one GPU over all weights of a token, each at the peak of its format.

    Raises InputError for a format that ``hardware`` has no peak for.
    """
    return hardware.mean_peak(as_run(llm, hardware).used_weights_by_format())
