"""The silicon cost model: the roofline's arithmetic on measured tables instead of fitted curves.

Every measured row becomes a point of an efficiency curve, so a step at a measured size takes the
measured time, and sizes in between are interpolated log-log. Attention uses the rows of the model's
own heads (or the nearest measured count) at the step's request count and mean context; its FLOPs
and bytes are the step's sums. Construction reduces the GEMM curves to one curve over rows per
weight shape, so pricing 200,000 steps takes a few numpy operations.
"""

from dataclasses import replace

from bssim.cost_models.engine_costs import NO_ENGINE, EngineCosts
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.roofline import ElementwiseResource, RooflineCostModel
from bssim.cost_models.silicon.measured_curves import measured_hardware
from bssim.cost_models.silicon.tables import load_tables, load_trtllm_tables


class SiliconCostModel(RooflineCostModel):
    """Prices steps from measured tables.

    The engine says whose kernels. Elementwise kernels and routed experts use the curves that were
    fitted to their rows.
    """

    name = "silicon"

    def __init__(
        self,
        llm: LLMSpec,
        hardware: HardwareSpec,
        tp: int = 1,
        engine: EngineCosts = NO_ENGINE,
        *,
        elementwise: ElementwiseResource = "compute",
    ) -> None:
        """Raise InputError if tables, or rows for this model's attention, are missing."""
        measured = load_tables(hardware.name)
        if engine.kernels == "trtllm":
            own = load_trtllm_tables(hardware.name)
            measured = replace(
                own,
                all_reduce=measured.all_reduce,
                others={**measured.others, **own.others},
                mla=measured.mla,
            )
        super().__init__(
            llm,
            measured_hardware(measured, Shard(llm, tp), hardware),
            tp,
            engine,
            elementwise=elementwise,
        )
