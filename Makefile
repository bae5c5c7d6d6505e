# Two commands: `make demo` trains a first net, `make test` runs lint, types and tests. Both make .venv if need be.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow lint format clean

demo: .venv/.installed-demo
	$(BIN)/striate train digits

test: .venv/.installed-dev lint
	$(BIN)/python -m pytest -q -n 3

# The tests that take long; .ci/run calls them after `make test`.
slow: .venv/.installed-dev
	$(BIN)/python -m pytest -q -n 2 -m slow || test $$? = 5  # 5: no test is marked slow

lint: .venv/.installed-dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

.venv/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "striate needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	touch $@

# pyproject.toml is the only thing that decides what is installed; the package itself is linked, not copied.
.venv/.installed-demo: .venv/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[parquet,export,serve]'
	touch $@

.venv/.installed-dev: .venv/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch .venv/.installed-demo $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
