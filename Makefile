# Everything below runs in a virtual environment of its own, .venv, which needs Python 3.11 or newer with its venv
# module, and a network the first time. What is imported there is the built wheel, never ./trax: PYTHONSAFEPATH keeps
# the checkout off sys.path.

PYTHON ?= python3
VENV   := .venv
RUN    := PYTHONSAFEPATH=1 $(VENV)/bin/python

# Directories too: one that changed may have lost a file.
SOURCES := $(shell find trax -name __pycache__ -prune -o -type d -print -o -name '*.py' -print) \
           trax/py.typed setup.py pyproject.toml MANIFEST.in README.rst COPYING
WHEEL    = $(shell ls dist/trax_log-*.whl 2>/dev/null)
PYTEST   = TRAX_TEST_INSTALLED=1 TRAX_TEST_WHEEL="$(CURDIR)/$(WHEEL)" $(RUN) -m pytest -q -n 2

# Whatever the caller has there must not come before the wheel.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test coverage crash mutants bench bench-quick lint docs wheel clean FORCE

help:
	@echo "make demo         kill a job again and again, compare it with an unkilled one"
	@echo "make test         run the tests against the built wheel"
	@echo "make coverage     the same, and which lines and branches they reach"
	@echo "make crash        search for faults at full length (20 minutes)"
	@echo "make mutants      take each safeguard away, see which test notices (20 minutes)"
	@echo "make bench        measure beside others, write docs/benchmarks.rst (40 minutes)"
	@echo "make bench-quick  the same in less than two minutes; only prints"
	@echo "make lint         ruff and mypy"
	@echo "make docs         build the documentation into docs/_build"
	@echo "make wheel        build the wheel into dist"
	@echo "make clean        remove .venv and everything that was built"
	@echo "PYTHON=python3.12 make ... chooses the interpreter for a new .venv"

demo: $(VENV)/numpy.stamp
	@$(VENV)/bin/python examples/demo.py

test: $(VENV)/test.stamp
	@$(PYTEST)

coverage: $(VENV)/test.stamp
	@$(PYTEST) --cov --cov-report=term-missing:skip-covered

crash: $(VENV)/test.stamp
	@$(RUN) tools/crash.py

mutants: $(VENV)/test.stamp
	@$(VENV)/bin/python tools/mutants.py

bench: $(VENV)/bench.stamp
	@$(RUN) benchmarks/__main__.py --output docs/benchmarks/results.json --page docs/benchmarks.rst

bench-quick: $(VENV)/bench.stamp
	@$(RUN) benchmarks/__main__.py --quick

lint: $(VENV)/lint.stamp
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy

docs: $(VENV)/docs.stamp
	@$(RUN) -m sphinx -q -W -b html docs docs/_build

wheel: $(VENV)/wheel.stamp
	@echo $(WHEEL)

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build htmlcov .coverage*

# One stamp for the wheel, one for each extra that was installed with it.
$(VENV)/wheel.stamp: $(SOURCES) tools/environment.py $(if $(WHEEL),,FORCE)
	@command -v $(PYTHON) >/dev/null || { echo "trax needs Python 3.11 or newer, and there is no '$(PYTHON)' here." \
	    "Install it, or name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) tools/environment.py $(VENV) wheel

$(VENV)/%.stamp: $(VENV)/wheel.stamp
	@$(PYTHON) tools/environment.py $(VENV) install $*
