"""How long does a step take? Hardware, models and cost models; knows nothing of schedulers.

- `hardware/`: GPUs and their efficiency curves; `llm/`: shapes and precision of models.
- `operators/`: what each operator of a step costs; `roofline.py` adds them up.
- `silicon/`, `fitted.py`, `paper.py`: the other cost models; `registry.py` makes one by its name.
- `step_cost.py`: what a step computes and costs; `overlap.py`: how its parts run together.
- `bounds.py`, `density.py`: lower bounds and the density of requests, made from cost models.
- `fitting/`: curves and hardware files made from measurements; `specs/`: the shipped YAML files.
"""
