# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint install clean web docs wheel

demo: $(VENV)/.installed-train
	rm -rf demo
	$(BIN)/lentigo demo demo

# Without npm the page's runtime is missing, and its tests skip with that reason.
test: $(VENV)/.installed-dev lint
	-$(BIN)/python tools/vendor_web.py
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p lentigo
	$(BIN)/lint-imports

install: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The plain PyPI build of torch on Linux is the CUDA one: several GB, and it runs on a CPU too.
$(VENV)/.installed-train: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e ".[train]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-train
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

# The runtime that runs models in the browser; built wheels carry it.
web: $(VENV)/.installed-train
	$(BIN)/python tools/vendor_web.py

# The documentation as a site in build/docs; a broken link or a missing page fails.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs

# The source archive in dist, and from it the wheel, with the model and the page's runtime inside.
wheel: $(VENV)/.installed-dev web
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
