"""Cost models by name."""

from pathlib import Path

from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.paper import PaperCostModel
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.silicon import SiliconCostModel
from bssim.cost_models.step_cost import CostModel
from bssim.errors import InputError, unknown_name

COST_MODELS = ("paper", "roofline", "silicon")
"""Names; beside them ``fitted:FILE`` reads what `bssim calibrate --from-replay` wrote."""


def make_cost_model(name: str, llm: LLMSpec, hardware: HardwareSpec, tp: int = 1) -> CostModel:
    """Return the cost model ``name`` for ``llm`` on ``tp`` GPUs of ``hardware``.

    ``fitted:FILE`` is of the model and machine it was fitted on, whatever is asked for here.

    Raises InputError for an unknown name, a ``tp`` that cannot split the model, or (silicon) a
    device or model without measured tables.
    """
    if name == "paper":
        return PaperCostModel(llm, hardware, tp)
    if name == "roofline":
        return RooflineCostModel(llm, hardware, tp)
    if name == "silicon":
        return SiliconCostModel(llm, hardware, tp)
    kind, _, path = name.partition(":")
    if kind == "fitted" and path:
        return FittedCostModel.read(Path(path))
    if kind == "fitted":
        raise InputError(
            "cost_model: found 'fitted'; expected fitted:FILE with the file that `bssim calibrate "
            "--from-replay` wrote"
        )
    raise unknown_name("cost_model", name, COST_MODELS)
