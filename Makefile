# `make run` and `make test` need Python 3.11 or newer and nothing else: uv is installed if it's missing, and uv
# installs the rest, as `uv.lock` has it, the first time.
#
#     make run ARGS="--dataset letters --report out"
#     make test ARGS="-m 'not slow'"

PYTHON ?= python3
UV := $(shell uv --version >/dev/null 2>&1 && echo uv \
	|| { $(PYTHON) -m uv --version >/dev/null 2>&1 && echo $(PYTHON) -m uv; } \
	|| echo .tools/bin/uv)
NEEDS_UV := $(filter .tools/bin/uv,$(UV))
RUN := $(UV) run --frozen
# A process a core and one more (tests wait, too), each with one thread of torch; a file stays together, so that what
# it makes is made once.
TEST := pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
SOME := tests/tracing tests/encoders/test_same_weights.py tests/data/test_manifests.py tests/store/test_memory_store.py \
	tests/spectral/test_pca.py tests/spectral/test_unit_moments.py tests/text tests/heads/test_unit_scores.py \
	tests/adapters/test_folding.py tests/adapters/test_residual.py tests/cli/test_encoders_command.py
LOWEST := .tools/lowest
OLDEST := $(shell sed -n 's/.*"transformers>=\(.*\)".*/\1/p' pyproject.toml)

# Some tests start a Python of their own; without compiled modules each would compile torch's and transformers' anew.
unexport PYTHONDONTWRITEBYTECODE
# Some of the packages are large; a slow line is no failure.
export UV_HTTP_TIMEOUT ?= 300

.PHONY: run test typed lowest check help

run: $(NEEDS_UV)  ## the main job, on a dataset and an encoder that come with the library
	@$(RUN) --no-default-groups residual run $(ARGS)

test: $(NEEDS_UV)  ## all tests, with the slow ones
	@$(RUN) $(TEST) $(ARGS)

typed: $(NEEDS_UV)  ## tests of every room, with shapes and types checked at run time
	@$(RUN) $(TEST) -m "not slow" --jaxtyping-packages=residual,beartype.beartype $(SOME)

# What some extra needs may be newer than what goes with the oldest transformers, which has a run of its own.
lowest: $(NEEDS_UV)  ## the same tests with the lowest versions that pyproject.toml allows
	@$(UV) venv --quiet --clear $(LOWEST)
	@$(UV) pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable ".[test]"
	@$(LOWEST)/bin/python -m $(TEST) -m "not slow" -o filterwarnings=default $(SOME)
	@$(UV) pip install --quiet --python $(LOWEST) "transformers==$(OLDEST).*"
	@$(LOWEST)/bin/python -m $(TEST) -o filterwarnings=default tests/tracing/test_families.py \
		tests/encoders/test_same_weights.py tests/encoders/test_versions.py
	@rm -r $(LOWEST)

check: $(NEEDS_UV)  ## format, lint, types, and which room imports which
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) ty check --error-on-warning
	@$(RUN) lint-imports --no-logo

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /make \1\t/p' Makefile

# A folder of its own, so that it works with Pythons that let nobody install into them.
.tools/bin/uv: export PIP_DISABLE_PIP_VERSION_CHECK = 1
.tools/bin/uv: export PIP_ROOT_USER_ACTION = ignore
.tools/bin/uv:
	@echo "Installing uv into .tools/"
	@$(PYTHON) -m pip install --quiet --target .tools uv \
		|| { $(PYTHON) -m venv .tools && .tools/bin/python -m pip install --quiet uv; } \
		|| { echo "uv couldn't be installed: get it from https://docs.astral.sh/uv and try again." >&2; exit 1; }
