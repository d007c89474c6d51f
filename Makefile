# make demo   one photograph through a real headless ComfyUI, four times larger
# make test   the whole test suite; make lint: style and types
# make test COMFYUI=FOLDER   the tests of the nodes, on the ComfyUI in that folder
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PINS := tools/requirements-comfyui.txt tools/requirements-comfyui-nodeps.txt tools/requirements-dev.txt
CONFIG ?= train/configs/mini.toml

.PHONY: demo test lint format train-mini evaluate clean setup
setup: $(VENV)/.ready .cache/comfyui/ComfyUI/main.py

$(VENV)/.ready: $(PINS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tools/requirements-comfyui.txt -r tools/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tools/requirements-comfyui-nodeps.txt
	touch $@

.cache/comfyui/ComfyUI/main.py: $(VENV)/.ready
	$(BIN)/python tools/comfyui.py
	touch $@

demo: setup
	$(BIN)/python tools/demo.py

test: setup
	$(BIN)/python -m pytest $(if $(COMFYUI),tests/comfy "--comfyui=$(COMFYUI)")

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# About twelve hours on two cores. Every step resumes where it stopped when the command is run again; the checkpoint
# is written into the run's folder.
train-mini: $(VENV)/.ready
	$(BIN)/python -m train photos
	$(BIN)/python -m train drawings --for $(CONFIG)
	$(BIN)/python -m train autoencoder --config $(CONFIG)
	$(BIN)/python -m train prior --config $(CONFIG)
	$(BIN)/python -m train sr --config $(CONFIG)
	$(BIN)/python -m train snr_head --config $(CONFIG)
	$(BIN)/python -m train export --config $(CONFIG)

evaluate: $(VENV)/.ready
	$(BIN)/python -m train evaluate --split test

clean:
	rm -rf $(VENV) .cache build dist *.egg-info demo/output.png demo/compare.png demo/.work
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
