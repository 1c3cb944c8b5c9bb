# The commands that a person and the continuous integration both run. Each sets up .venv by itself.

PYTHON ?= python3
BIN := .venv/bin
BACKENDS := tensorflow jax torch
# Most of a test is importing and compiling, which takes one core: two processes take half the time.
NOT_SLOW = -m 'not slow'
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile $(NOT_SLOW)

.PHONY: demo test test-all test-unit test-contract zoo check docs bench clean

demo: .venv/installed
	rm -rf demo
	$(BIN)/kcost demo --out demo

test: test-unit test-contract

# With the tests that take minutes.
test-all:
	$(MAKE) test NOT_SLOW=

test-unit: .venv/installed
	$(PYTEST)

# The same tests on each backend, in a process of its own.
test-contract: .venv/installed
	for backend in $(BACKENDS); do \
	    echo "contract tests on $$backend"; \
	    KERAS_BACKEND=$$backend OMP_NUM_THREADS=1 $(PYTEST) tests/contract tests/zoo || exit 1; \
	done

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
