# Everything runs from .venv, which is created on first use and brought up to
# date when requirements.txt or pyproject.toml change.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that tests run in; a file's tests stay together.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -q --numprocesses=$(JOBS) --dist=loadfile
TOSA_VENV := .venv-tosa
TOSA_STAMP := $(TOSA_VENV)/.installed
OLDEST_VENV := .venv-oldest
OLDEST_STAMP := $(OLDEST_VENV)/.installed
QNN_VENV := .venv-qnn
QNN_STAMP := $(QNN_VENV)/.installed
READERS_VENV := .venv-readers
READERS_STAMP := $(READERS_VENV)/.installed
WEB_FOLDER := .venv-web
WEB_STAMP := $(WEB_FOLDER)/.installed
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed
PEERS := hgq2 qkeras
PEER_STAMPS := $(PEERS:%=.venv-%/.installed)
BUILDIFIER_VERSION := 8.2.1

# Only fatal messages of native code; Python's exceptions say the rest.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export KERAS_BACKEND := tensorflow

.DEFAULT_GOAL := help
.PHONY: help setup setup-tosa setup-docs setup-readers setup-arm setup-qnn \
	setup-browser setup-web setup-peers docs demo web-page test test-slow \
	compatibility lint format build-files latency-table bench bench-accuracy bench-faults \
	bench-fuzz \
	bench-exports bench-large bench-peers bench-tiny bench-workers bench-zoo \
	readme \
	dist clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(STAMP) ## Create .venv with the pinned requirements.

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	touch $(STAMP)

setup-tosa: $(TOSA_STAMP) ## Create .venv-tosa, for the TOSA reference model.

# Its tools pin other versions of what the packages need.
$(TOSA_STAMP): requirements-tosa.txt
	$(PYTHON) -m venv $(TOSA_VENV)
	$(TOSA_VENV)/bin/python -m pip install --quiet \
		--disable-pip-version-check -r requirements-tosa.txt
	touch $(TOSA_STAMP)

setup-docs: $(DOCS_STAMP) ## Create .venv-docs, which builds the site.

$(DOCS_STAMP): requirements-docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet \
		--disable-pip-version-check -r requirements-docs.txt
	touch $(DOCS_STAMP)

setup-readers: $(READERS_STAMP) ## Create .venv-readers: OpenVINO, tf2onnx, Model Explorer (3 GB).

$(READERS_STAMP): requirements-readers.txt
	$(PYTHON) -m venv $(READERS_VENV)
	$(READERS_VENV)/bin/python -m pip install --quiet \
		--disable-pip-version-check -r requirements-readers.txt
	touch $(READERS_STAMP)

setup-qnn: $(QNN_STAMP) ## Create .venv-qnn: Qualcomm's compiler and emulator (600 MB).

# Its libraries are Qualcomm's, under a licence of their own.
$(QNN_STAMP): requirements-qnn.txt
	$(PYTHON) -m venv $(QNN_VENV)
	$(QNN_VENV)/bin/python -m pip install --quiet \
		--disable-pip-version-check -r requirements-qnn.txt
	@echo "Using it accepts Qualcomm's licence:" \
		$(QNN_VENV)/lib/python3*/site-packages/onnxruntime_qnn/*LICENSE*.pdf
	touch $(QNN_STAMP)

setup-arm: ## Create .venv-arm: emulated ARM cores to verify files on (Debian).
	$(PYTHON) -m tools.arm .venv-arm

setup-browser: ## Install Chromium, in which tests open pages (Debian, as root).
	$(PYTHON) -m tools.chromium

setup-web: $(WEB_STAMP) ## Create .venv-web: LiteRT.js, to verify files for browsers (Node, npm).

$(WEB_STAMP): tools/web/package.json tools/web/package-lock.json
	mkdir -p $(WEB_FOLDER)
	cp $^ $(WEB_FOLDER)
	cd $(WEB_FOLDER) && npm ci --silent --no-audit --no-fund
	touch $(WEB_STAMP)

setup-peers: $(PEER_STAMPS) ## Create .venv-hgq2 and .venv-qkeras, for peers.

# Two, for HGQ2 ships a package that is named as qkeras-v3's.
$(PEER_STAMPS): .venv-%/.installed: benchmarks/requirements-%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet \
		--disable-pip-version-check -r $<
	touch $@

# Where else its files are run; VERIFY_ON=arm,web after `make setup-arm` and
# `make setup-web`, gpu where a Vulkan is found.
VERIFY_ON ?=
demo: $(STAMP) ## Train, quantize, export and verify a ResNet-8 (3 minutes).
	$(BIN)/python -m train --model=resnet8 --dataset=fashion_mnist_mini \
		--target_compression=8 --allowed_bits=8,4,2 \
		--float_epochs=4 --epochs=3 \
		--activation_bits=8 --targets=all --max_accuracy_drop=1.5 \
		--verify_on=$(VERIFY_ON) \
		--output_dir=out/demo --overwrite

web-page: $(STAMP) $(WEB_STAMP) ## Make out/web of the demo's file: a page that runs it.
	$(BIN)/python -m tools.web_page out/demo/web.tflite out/web \
		--labels=train/data/fashion_mnist_mini/1.0.0/label.labels.txt

# Which part of the slow tests to run beside the others, such as 2/3.
SLOW ?=
CHOSEN := $(if $(SLOW),--part=$(SLOW),-m "not slow")
test: $(STAMP) ## Run the test suite.
	$(PYTEST) $(CHOSEN)
	$(PYTEST) $(CHOSEN) tests/tfmot

# Which part of the slow tests, such as 2/4; a test is always in the same one.
PART ?= 1/1
test-slow: $(STAMP) ## Run the slow tests, or a part of them (PART=2/4).
	$(PYTEST) -m slow --part=$(PART)
	# A part may have none of them, which is 5.
	$(PYTEST) -m slow --part=$(PART) tests/tfmot || [ $$? -eq 5 ]

compatibility: $(OLDEST_STAMP) ## Test with the oldest TensorFlow and Keras.
	$(OLDEST_VENV)/bin/python -m pytest -q --numprocesses=$(JOBS) \
		--dist=loadfile -m "not slow" tests/msq_tf tests/tflite_export

$(OLDEST_STAMP): requirements-oldest.txt
	$(PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install --quiet \
		--disable-pip-version-check -r requirements-oldest.txt
	touch $(OLDEST_STAMP)

lint: $(STAMP) ## Check style, types and BUILD files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.build_files --check
	@if command -v buildifier > /dev/null; then \
		buildifier -mode=check -lint=warn -r . ; \
	elif command -v npx > /dev/null; then \
		npx --yes @bazel/buildifier@$(BUILDIFIER_VERSION) \
			-mode=check -lint=warn \
			$$(git ls-files '*BUILD' '*.bazel' '*.bzl'); \
	else \
		echo "buildifier is not installed: the format of BUILD files" \
			"was not checked."; \
	fi

format: $(STAMP) ## Rewrite the code in the project's style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build-files: $(STAMP) ## Write the BUILD files anew from the imports.
	$(BIN)/python -m tools.build_files

latency-table: $(STAMP) ## Measure operators of this machine, 1 thread (TABLE=).
	$(BIN)/python -m tools.latency_table $(TABLE)

bench: $(STAMP) ## Measure training's cost, targets, Vela (20 minutes).
	$(BIN)/python -m benchmarks cost scaling targets vela

bench-accuracy: $(STAMP) ## Accuracy for bytes, all rows, in the background.
	@mkdir -p out/accuracy
	@nohup $(BIN)/python -m benchmarks accuracy \
		> out/accuracy/log 2>&1 & \
	echo "Running in the background; out/accuracy/log says how far it is." \
		"Give the same command again to go on after an interruption."

bench-faults: $(STAMP) ## Kill a search 30 times, and a worker 3 (25 minutes).
	$(BIN)/python -m benchmarks faults

bench-workers: $(STAMP) ## Lose workers in ten ways, train long (45 minutes).
	$(BIN)/python -m benchmarks workers

bench-fuzz: $(STAMP) ## Read 100,000 hostile files (40 minutes).
	$(BIN)/python -m benchmarks fuzz crafted

bench-exports: $(STAMP) ## Exports beside TensorFlow's converter (20 minutes).
	$(BIN)/python -m benchmarks export_cost

bench-large: $(STAMP) ## A model of 100 million parameters, and a long run.
	$(BIN)/python -m benchmarks large long_run

bench-peers: $(STAMP) ## Cost and accuracy of TFMOT, HGQ2, qkeras-v3 and MSQ.
	$(BIN)/python -m benchmarks peers

bench-tiny: $(STAMP) ## MLPerf Tiny's four models below 8 bits (90 minutes).
	$(BIN)/python -m benchmarks mlperf_tiny

bench-zoo: $(STAMP) ## Export all of keras.applications and KerasHub (1 hour).
	$(BIN)/python -m benchmarks zoo hub

docs: $(DOCS_STAMP) ## Build the site into out/site; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --quiet \
		--strict

readme: $(STAMP) ## Write the README's figures from out/demo and benchmarks.
	$(BIN)/python -m tools.docs

dist: $(STAMP) ## Build the wheel and the sdist.
	rm -rf build dist
	$(BIN)/python -c "from setuptools import build_meta; \
		build_meta.build_sdist('dist'); build_meta.build_wheel('dist')"
	rm -rf build

clean: ## Remove results, caches and environments.
	rm -rf out build dist *.egg-info $(VENV) $(TOSA_VENV) \
		$(WEB_FOLDER) $(DOCS_VENV) $(QNN_VENV) $(OLDEST_VENV) \
		$(READERS_VENV) .venv-arm \
		$(PEERS:%=.venv-%) .mypy_cache \
		.pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
