# demo, test and check need Python 3.11 or newer and nothing else: the first call makes .venv and installs into it.
# make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch from there: PyPI's wheel for Linux brings CUDA.
PYTHON ?= python3
BIN = .venv/bin
TORCH_INDEX ?=
CHAOS = $(addprefix tests/,execution/test_kill.py protocol/test_kills.py store/test_faults.py decoding/test_zoo.py store/test_local_faults.py \
	training/test_train.py protocol/test_protocol.py store/test_parquet.py protocol/test_histories.py training/test_finite.py \
	windows/test_faces.py decoding/test_corrupted.py execution/test_ends.py ray_cluster/test_private_ray.py)

# The newer pip resolves the pins in half the time, and 16,000 files are compiled when they are first imported, not at
# once: 46 s in all on 2 cores, where the pip 23.2 of Python 3.11 takes 207 s. Hence the unexport, too.
INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade pip && \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check docs chaos mutants clean
.NOTPARALLEL:

demo: .venv/.installed
	$(BIN)/wavmill demo

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 3 --dist loadfile

# docs/job.md, docs/images/way.svg, what plan prints in the READMEs. docs/generate.py says how to make the rest anew.
docs: .venv/.installed-dev
	$(BIN)/python docs/generate.py

# What takes too long for every change: every fault at every request and every call to the disk, 900 kills without Ray
# and 100 through it, 100,000 headers, the whole state space. Kills go on where they were interrupted.
chaos: .venv/.installed-dev
	WAVMILL_CHAOS=1 $(BIN)/python -m pytest -rP -n 3 --dist worksteal $(CHAOS)

# Whether the tests notice small changes of the product: 200 of all that are possible, always the same ones. It goes on
# where it was interrupted, and the first time measures which tests execute which line.
mutants: .venv/.installed-dev
	$(BIN)/python tests/mutants/mutants.py

# What make and the tools made; never what a job made.
clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into .venv (takes a minute or two)"
	@$(INSTALL) -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into .venv, with the tools for tests (takes a minute or two)"
	@$(INSTALL) -e '.[dev]'
	@touch .venv/.installed $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
		echo "wavmill needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2> /dev/null || echo not found)."; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
