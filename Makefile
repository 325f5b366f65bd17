# sudo make demo   sets up what it needs, then runs the main job
# sudo make test   sets up what it needs, then runs every test
# make check       ruff, mypy, import rules, audit of code and dependencies
# make fuzz        parsers of strangers' bytes, led by coverage, and the API: make fuzz MINUTES=60
# make chaos       a real cluster under traffic and faults, its history checked: make chaos MINUTES=60 SEED=…
# make simulate SEEDS=1000 START=1   the whole cluster in virtual time, from seeds
# make bench       benchmarks against peers and raw limits (bench/RESULTS.md)

PYTHON ?= $(shell command -v python3.13 || command -v python3.12 || command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check audit fuzz chaos simulate bench clean

setup: $(VENV)/.ready
	@./setup/system

$(VENV)/.ready: pyproject.toml
	@./setup/python "$(PYTHON)" "$(VENV)"

demo: setup
	@$(BIN)/python -m shoal.demo.main

test: setup
	@./setup/tests "$(VENV)"
	@$(BIN)/python -m tests.run

check: $(VENV)/.ready
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.audit

audit: $(VENV)/.ready
	@$(BIN)/python -m tests.audit

fuzz: MINUTES ?= 20
fuzz: $(VENV)/.ready
	@$(BIN)/python -m pip install -q --disable-pip-version-check atheris 2>/dev/null || true
	@$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)
	@SHOAL_FUZZ_EXAMPLES=$$(($(MINUTES) * 200)) $(BIN)/python -m pytest -q --timeout=0 tests/unit/api/test_fuzz.py tests/compatibility/test_fuzz.py

simulate: SEEDS ?= 1000
simulate: START ?= 1
simulate: JOBS ?= 2
simulate: $(VENV)/.ready
	@$(BIN)/python -m tests.simulator --seeds $(SEEDS) --start $(START) --jobs $(JOBS)

chaos: MINUTES ?= 60
chaos: setup
	@./setup/tests "$(VENV)"
	@nice $(BIN)/python -m tests.chaos.run --minutes $(MINUTES) --seed "$(SEED)"

bench: setup
	@$(BIN)/python -m bench.run

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .fuzz
