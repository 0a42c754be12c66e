# `make demo` and `make test` each do all their set-up on a machine with Python >= 3.11 (with venv and pip) and make.
# Settings, on the command line:
#   PYTHON=python3.12                          the interpreter to use, instead of the first that fits
#   CONSTRAINTS=launch/constraints/colab.txt   the versions to install, instead of those that fit the Python
#   VENV=.venv-colab                           where the virtual environment goes, to keep several
#   P=fuzz_decode                             the proof that `make prove` runs; without it proofs are listed
#   WORKERS=4                                  files of tests that run side by side; 2 by default, each takes some GiB

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?=
CONSTRAINTS ?=
VENV ?= .venv
WORKERS ?= 2
EXPERIMENT ?= experiments/digits.py
RUN ?= runs/demo
P ?=

BIN := $(VENV)/bin
# glibc 2.35 and later: the buffers of a step are large, and 4 KiB pages cost a third of its time on a CPU.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1
STAMP := $(VENV)/.installed
LOG := $(VENV).log

# What the caller's shell has set for other projects must not leak into this environment. Where packages come from
# (PIP_INDEX_URL, PIP_CERT and so on) is the caller's business and stays.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV CONDA_PREFIX
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIREMENT PIP_EDITABLE PIP_NO_DEPS PIP_DRY_RUN
unexport PIP_NO_BUILD_ISOLATION PIP_REQUIRE_HASHES PIP_PYTHON PIP_LOG PIP_UPGRADE PIP_PRE PIP_BUILD_CONSTRAINT
export PIP_USER := 0
export PIP_REQUIRE_VIRTUALENV := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONNOUSERSITE := 1

# Asked of each candidate interpreter. Prints three lines: the interpreter that a virtual environment builds on (also
# when the candidate itself lies in one), the constraint file, and a key of everything that shapes the installation.
define PROBE
import hashlib, os, sys
if sys.version_info < (3, 11):
    print("Python %d.%d, older than 3.11" % tuple(sys.version_info[:2])); sys.exit(1)
try:
    import ensurepip, venv
except ImportError:
    print("lacks venv or ensurepip (on Debian and Ubuntu: apt install python3-venv)"); sys.exit(1)
name = "py311" if sys.version_info < (3, 12) else "latest"
constraints = os.environ["CONSTRAINTS"] or "launch/constraints/%s.txt" % name
base = getattr(sys, "_base_executable", None) or sys.executable
key = hashlib.sha256(repr((sys.version, base, os.getcwd(), os.environ["VENV"])).encode())
for path in ("setup.py", "pyproject.toml", constraints):
    with open(path, "rb") as file:
        key.update(file.read())
print("%s\n%s\n%s" % (base, constraints, key.hexdigest()))
endef
export PROBE CONSTRAINTS VENV

.PHONY: help demo things test prove docs lint format clean setup

help: ## List the targets.
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

demo: setup ## Train the digits experiment, evaluate it, and write runs/demo/report.html.
	@$(BIN)/omnijax train $(EXPERIMENT) --workdir $(RUN)
	@$(BIN)/omnijax evaluate $(RUN)

things: setup ## Fetch packages, train the showpiece on them, measure it, and write runs/things/report.html.
	@$(HUGE_PAGES) $(BIN)/omnijax train experiments/things/experiment.py --workdir runs/things
	@$(HUGE_PAGES) $(BIN)/omnijax evaluate runs/things
	@$(HUGE_PAGES) $(BIN)/omnijax evaluate runs/things --split test/artist

test: lint ## Lint, types, and all tests.
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

prove: setup ## List the slow proofs; P=NAME runs one, or continues it.
	@$(BIN)/python experiments/prove.py $(P)

docs: setup ## Build the documentation into site/.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@printf 'site/index.html\nWith the search: %s -m http.server --directory site\n' "$(BIN)/python"

lint: setup ## Check style, formatting and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then $(BIN)/mypy omnijax; \
	else echo 'Types are checked only on Python 3.11, because the type stubs of other versions of NumPy and JAX differ.'; fi

format: setup ## Format the code, and fix what the linter can fix.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## Remove the virtual environment, caches and kept proofs; runs/ and data/ stay.
	@rm -rf $(VENV) $(LOG) .prove build dist site omnijax.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Looks at the stamp on every call (it costs two starts of Python) and rebuilds the environment when the stamp is not
# that of this setup.py, these constraints, this Python and this place, or when the interpreter in it no longer runs.
setup: ## Make or update the virtual environment (the other targets call it).
	@set -u; found=; complaints=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if command -v "$$candidate" >/dev/null 2>&1; then \
	    if found=$$("$$candidate" -I -c "$$PROBE" 2>/dev/null); then break; fi; \
	    complaints="$$complaints  $$candidate: $${found:-does not run}\n"; found=; \
	  else complaints="$$complaints  $$candidate: not found\n"; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  printf 'omnijax needs Python 3.11 or newer, with venv and pip. Tried:\n%b' "$$complaints" >&2; \
	  printf 'Install one, or name it: make PYTHON=/path/to/python3.12\n' >&2; exit 1; \
	fi; \
	base=$$(printf '%s' "$$found" | sed -n 1p); \
	constraints=$$(printf '%s' "$$found" | sed -n 2p); \
	key=$$(printf '%s' "$$found" | sed -n 3p); \
	if [ "$$(cat "$(STAMP)" 2>/dev/null)" = "$$key" ] && "$(BIN)/python" -c pass >/dev/null 2>&1; then exit 0; fi; \
	printf 'Installing into %s: %s, %s (a minute or a few; log: %s)\n' \
	  "$(VENV)" "$$("$$base" -V)" "$$constraints" "$(LOG)"; \
	rm -rf "$(VENV)"; \
	if "$$base" -m venv "$(VENV)" >"$(LOG)" 2>&1 \
	  && "$(BIN)/python" -m pip install --constraint "$$constraints" --editable '.[demo,test]' >>"$(LOG)" 2>&1 \
	  && "$(BIN)/python" -c 'from flax import nnx' >>"$(LOG)" 2>&1; \
	then printf '%s\n' "$$key" >"$(STAMP)"; \
	else tail -n 30 "$(LOG)" >&2; printf 'The installation failed; the whole log is %s\n' "$(LOG)" >&2; exit 1; fi
