# make run      the main job: the reference mitigation `kl` against the baseline, in the smoke division
# make test     every check and test; sets up what is missing
# make compare  the whole catalogue of mitigations on the nano division: stop it when you like, it goes on where it was
# make validity  simulate every interval: coverage, false findings, power
# make bench    trainer and sampling against TRL and transformers, as ratios
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SUBMISSION ?= kl
DIVISION ?= smoke
ARGS ?=

.PHONY: run compare validity setup test lint bench pages engine clean
.DELETE_ON_ERROR:

run: setup
	@$(BIN)/emperf run $(SUBMISSION) --division $(DIVISION)

compare: setup
	@$(BIN)/emperf compare --division nano $(ARGS)

setup: $(READY)
	@$(BIN)/emperf prepare --image-if-engine --quiet

$(READY): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (once, a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "EMPerf needs Python 3.11 or newer: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@grep '^torch==' requirements.lock | xargs $(BIN)/python -m pip install --quiet
	@$(BIN)/python -m pip install --quiet -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@rm -rf build/types && mkdir -p build/types && for file in reference_impls/*/mitigation.py; do \
		cp $$file build/types/$$(basename $$(dirname $$file) | tr - _).py; done
	$(BIN)/mypy harness/emperf build/types

# Tests against a real engine, or in a sandbox, run where there is one or it can be had; else pytest names what it skipped.
# Most tests run side by side; those that time things or share the engine run alone afterwards.
test: $(READY) lint
	@tools/sandbox.sh || true
	@started="$$(tools/engine.sh start)" && eval "$$started" || echo "No Docker engine: the tests against one will be skipped, by name."; \
	$(BIN)/emperf prepare --image-if-engine --quiet || exit 1; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadgroup --durations 15 -m "not alone"; side=$$?; \
	$(BIN)/python -m pytest --durations 10 -m alone && exit $$side

validity: $(READY)
	@$(BIN)/python -m emperf.tools.validity simulate $(ARGS)

# Tables of README and docs, from the records in docs/records.
pages: $(READY)
	@$(BIN)/python -m emperf.tools.pages

bench: setup
	@$(BIN)/python -m emperf.tools.bench

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache
