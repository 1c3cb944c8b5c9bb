# The commands that a person and the continuous integration both run. Each sets up .venv by itself.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
BACKENDS := tensorflow jax torch
# Most of a test is importing and compiling, which takes one core. Each part is one process, so that what its tests share
# (a framework, models, servers) is made once. As many parts run at a time as there are cores, each on a core of its own,
# and two more, which run where others wait.
JOBS ?= $(shell echo $$(( $$(nproc) + 2 )))
# Where it is set, each of many hundred processes would compile kcost's sources again.
unexport PYTHONDONTWRITEBYTECODE
NOT_SLOW = -m 'not slow'
PYTEST = $(BIN)/python -m pytest $(NOT_SLOW)
LOG := .venv/test.log
FAILURES := ^(FAILED|ERROR) [^ ]|crashed while running|: \*\*\* \[
# The longest first.
PARTS := test-programs test-jax test-tensorflow test-bench test-unit test-torch
# The unit tests that start workers, of the simulated backend, and wait for them most of the time.
BENCH := tests/unit/bench tests/unit/search tests/unit/recommend

.PHONY: demo test test-all test-contract $(PARTS) zoo check docs bench clean

demo: .venv/installed
	rm -rf demo
	$(BIN)/kcost demo --out demo

test: .venv/installed
	@echo '$(JOBS) at a time, each of which prints when it ends: $(PARTS)'
	@mkdir -p $(dir $(LOG)) && $(MAKE) --jobs $(JOBS) --keep-going --output-sync=target --no-print-directory $(PARTS) 2>&1 | tee $(LOG) || \
	    { echo 'What failed, of all that is in $(LOG):'; grep -E '$(FAILURES)' $(LOG); exit 1; }

# With the tests that take minutes, and programs of jax that are compiled as users have it.
test-all: .venv/installed
	@XLA_FLAGS= $(MAKE) test NOT_SLOW=

test-unit: .venv/installed
	$(PYTEST) tests/unit $(BENCH:%=--ignore=%)

test-bench: .venv/installed
	$(PYTEST) $(BENCH)

# What starts processes: the command line, exports, servers.
test-programs: .venv/installed
	$(PYTEST) tests/cli tests/ship tests/serving

# The same tests on each backend, in a process of its own: a worker, as a fault in a framework's own code ends the
# process, and the one that waits for it then names the test and goes on with another worker.
test-contract: $(BACKENDS:%=test-%)

$(BACKENDS:%=test-%): test-%: .venv/installed
	KERAS_BACKEND=$* OMP_NUM_THREADS=1 $(PYTEST) --numprocesses 1 --max-worker-restart 100 tests/contract tests/zoo

# docs/layers.md, from what each layer of Keras ends with on each backend.
ZOO := .venv/zoo
zoo: .venv/installed
	rm -rf $(ZOO) && mkdir $(ZOO)
	for backend in $(BACKENDS); do \
	    KCOST_ZOO_ROWS=$(ZOO) KERAS_BACKEND=$$backend OMP_NUM_THREADS=1 \
	        $(BIN)/python -m pytest -n 2 tests/zoo/test_layers.py || exit 1; \
	done
	KERAS_BACKEND=torch $(BIN)/python -m tests.zoo.table $(ZOO)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site in build/docs, which opens without a server; any warning ends it.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The library's own hot paths, without what benchmarks/conftest.py sets up for a backend; then the models on each.
bench: .venv/installed
	$(BIN)/python -m pytest --confcutdir=benchmarks/library benchmarks/library
	for backend in $(BACKENDS); do KERAS_BACKEND=$$backend $(BIN)/python -m pytest benchmarks/test_*.py || exit 1; done

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kcost needs Python 3.11 or newer. Received: %d.%d. Set PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

clean:
	rm -rf .venv demo .pytest_cache
