# `make demo` and `make test` set up everything they need in $(VENV), from Python 3.11+ alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What Python compiles it must be allowed to keep, else every process compiles PyTorch again.
unexport PYTHONDONTWRITEBYTECODE

# What pytest leaves out; nothing in test-all.
SELECTED := -m "not slow"

# The versions that tests/data/trt-api lists.
TRT_BINDINGS ?= 10.16.1.11 11.4.0.106

SERVING ?= .venv-serving
SERVING_INSTALL := $(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--constraint tests/serving/constraints.txt

SCALE ?= .venv-scale
SCALE_INSTALL := $(SCALE)/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt

PEER ?= .venv-peer
PEER_INSTALL := $(PEER)/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt --constraint tests/peer/constraints.txt

.PHONY: help demo test test-all lint types layers unit battery benchmarks peer serving scale clean

help:
	@echo "make demo        run on examples/riformer-digits.pth: what to ship, how fast, how right, on what evidence"
	@echo "make test        every check: ruff, mypy, import-linter, pytest with coverage"
	@echo "make test-all    the same with the slow tests: more of what the others sample"
	@echo "make battery     all damaged and hostile inputs, of which the tests take a sample; SEED=... draws others"
	@echo "make benchmarks  measure the targets and write benchmarks/results/"
	@echo "make docs        write docs/reference/ from the code"
	@echo "make peer        compare with mmpretrain 1.2.0, live, in an environment of its own"
	@echo "make serving     serve the digits with a real tritonserver, in an environment of its own"
	@echo "make scale       score the digits with a real Ray, in an environment of its own"
	@echo "make clean       remove what these made"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); this takes a minute or two"

# pip compiles all of a package, which takes as long as the rest; Python compiles what is imported.
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	@$(INSTALL) --no-compile --editable ".[cpu,report,rtx]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@$(INSTALL) --no-compile --editable ".[cpu,dev,openvino,report,rtx]"
	@touch $@ $(VENV)/.base

demo: $(VENV)/.base
	@mkdir -p .demo
	$(BIN)/riformer-deploy run examples/riformer-digits.pth --image-size 64 -o .demo/riformer-digits \
		--calibration examples/digits/calibration --data examples/digits --max-drop 0.5 --max-seconds 20

test: lint types layers unit

test-all: SELECTED :=
test-all: test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy --num-workers 2 riformer_deploy cli tests benchmarks docs

layers: $(VENV)/.dev
	$(BIN)/lint-imports

# TensorRT's bindings without its libraries: what tests/unit/trt compares the names in our code with.
# Where a wheel does not exist for this Python or machine: make test TRT_BINDINGS=
$(VENV)/trt-bindings/.done: $(VENV)/.dev
	@mkdir -p $(@D)
	@for version in $(TRT_BINDINGS); do \
		$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(@D) \
			tensorrt-cu13-bindings==$$version || exit 1; done
	@touch $@

unit: $(VENV)/.dev $(VENV)/trt-bindings/.done
	$(BIN)/coverage erase
	$(BIN)/pytest -n 2 --dist worksteal $(SELECTED) --cov --cov-report=term

SEED ?= 1000

battery: $(VENV)/.dev
	BATTERY=$(SEED) $(BIN)/pytest -n 2 tests/battery

.PHONY: docs
docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

benchmarks: $(VENV)/.dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/export_cost.py
	$(BIN)/python benchmarks/fp32_latency.py
	$(BIN)/python benchmarks/accuracy_overlap.py
	$(BIN)/python benchmarks/cpu_latency.py
	$(BIN)/python benchmarks/quantization_comparison.py
	$(BIN)/python benchmarks/tune_comparison.py
	$(BIN)/python benchmarks/rtx_builds.py
	$(BIN)/python benchmarks/render.py

# mmcv-lite and mmpretrain name requirements that inference does not need and that do not install here.
$(PEER)/.done: pyproject.toml constraints.txt tests/peer/constraints.txt
	@test -x $(PEER)/bin/python || $(PYTHON) -m venv $(PEER)
	@$(PEER_INSTALL) --editable ".[cpu]"
	@$(PEER_INSTALL) mmengine einops importlib-metadata mat4py matplotlib modelindex
	@$(PEER_INSTALL) --no-deps mmcv-lite mmpretrain torchvision
	@touch $@

peer: $(PEER)/.done
	$(PEER)/bin/python tests/peer/compare.py

# tritonserver is in the wheel nvidia-pytriton, which needs NumPy 1; no PyTorch is installed there.
$(SERVING)/.done: pyproject.toml tests/serving/constraints.txt
	@test -x $(SERVING)/bin/python || $(PYTHON) -m venv $(SERVING)
	@$(SERVING_INSTALL) nvidia-pytriton onnxruntime pillow packaging typing-extensions rich typer pytest
	@$(SERVING_INSTALL) "tritonclient[http,grpc]"
	@$(SERVING_INSTALL) --no-deps --editable .
	@touch $@

$(SERVING)/digits: $(VENV)/.base $(SERVING)/.done
	$(BIN)/riformer-deploy export examples/riformer-digits.pth --image-size 64 -o $@ \
		--precision fp32 --precision int8 --calibration examples/digits/calibration --force
	@touch $@

serving: $(SERVING)/digits
	SERVING_BUNDLE=$(SERVING)/digits timeout 300 $(SERVING)/bin/python -m pytest -q \
		--confcutdir tests/serving tests/serving/live.py

# Ray is large and starts in ten seconds, so it is not in $(VENV); no PyTorch is installed there.
$(SCALE)/.done: pyproject.toml constraints.txt
	@test -x $(SCALE)/bin/python || $(PYTHON) -m venv $(SCALE)
	@$(SCALE_INSTALL) "ray[data]" onnxruntime pillow packaging typing-extensions rich typer pytest
	@$(SCALE_INSTALL) --no-deps --editable .
	@touch $@

$(SCALE)/.bundles: $(VENV)/.base $(SCALE)/.done
	$(BIN)/riformer-deploy export examples/riformer-digits.pth --image-size 64 -o $(SCALE)/digits \
		--precision fp32 --precision int8 --calibration examples/digits/calibration --force
	$(BIN)/riformer-deploy export examples/riformer-digits.pth --image-size 64 -o $(SCALE)/features \
		--output-form features --calibration examples/digits/calibration --force
	@touch $@

scale: $(SCALE)/.bundles
	SCALE_BUNDLES=$(SCALE) timeout 1200 $(SCALE)/bin/python -m pytest -q \
		--confcutdir tests/scale tests/scale/score_file.py tests/scale/live.py

clean:
	rm -rf $(VENV) $(PEER) $(SERVING) $(SCALE) .demo .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
