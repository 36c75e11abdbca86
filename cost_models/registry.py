"""Cost models by name."""

from pathlib import Path

from bssim.cost_models.engine_costs import NO_ENGINE, EngineCosts
from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.hardware import HardwareSpec, as_run
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.paper import PaperCostModel
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.silicon import SiliconCostModel
from bssim.cost_models.step_cost import CostModel
from bssim.errors import InputError, unknown_name

COST_MODELS = ("paper", "roofline", "silicon")
"""Names. In addition, ``fitted:FILE`` reads a file of `bssim calibrate --from-replay`."""


def fitted_file(name: str) -> Path | None:
    """Return the file of a ``fitted:FILE`` name; None for any other cost model.

    Raises InputError for ``fitted`` without a file.
    """
    kind, _, path = name.partition(":")
    if kind != "fitted":
        return None
    if not path:
        raise InputError(
            "cost_model",
            repr(name),
            "fitted:FILE with the file that `bssim calibrate --from-replay` wrote",
        )
    return Path(path)


def check_cost_model(name: str) -> None:
    """Raise InputError for an unknown name, and for a ``fitted:FILE`` that cannot be read."""
    path = fitted_file(name)
    if path is not None:
        FittedCostModel.read(path)
    elif name not in COST_MODELS:
        raise unknown_name("cost_model", name, (*COST_MODELS, "fitted:FILE"))


def make_cost_model(
    name: str,
    llm: LLMSpec,
    hardware: HardwareSpec,
    tp: int = 1,
    engine: EngineCosts = NO_ENGINE,
) -> CostModel:
    """Return the cost model ``name`` for ``llm`` on ``tp`` x ``engine.pp`` GPUs of ``hardware``.

    ``engine`` adds the host time of an engine to ``roofline`` and ``silicon``. ``paper`` has no
    host time; ``fitted:FILE`` includes that of the engine, model and machine of its fit.

    Raises InputError for an unknown name, a ``tp`` that cannot split the model, or (silicon) a
    device or model without measured tables.
    """
    path = fitted_file(name)
    if engine.pp > 1 and name not in ("roofline", "silicon"):
        raise InputError(
            "pp", f"{engine.pp} with cost_model {name}", "roofline or silicon, which price stages"
        )
    if path is not None:
        return FittedCostModel.read(path)
    run = as_run(llm, hardware)
    if name == "roofline":
        return RooflineCostModel(run, hardware, tp, engine)
    if name == "silicon":
        return SiliconCostModel(run, hardware, tp, engine)
    if name == "paper":
        return PaperCostModel(run, hardware, tp)
    raise unknown_name("cost_model", name, (*COST_MODELS, "fitted:FILE"))
