# Each target is complete on a fresh machine: it installs what it needs first.
# Options of the installation are remembered in the environment, so
# `make install STACK=openmmlab` followed by `make test` keeps that stack.

VENV ?= .venv
# Quoted for the shell: the path may have a space, which wildcard cannot.
PY = '$(VENV)/bin/python'
HAS_PY = $(shell test -x $(PY) && echo yes)
TEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=
FUZZ_EXAMPLES ?= 100
# A machine with a GPU may have no package index: nothing is installed there.
GPU_PY ?= $(if $(HAS_PY),$(PY),python3)
GPU_ARGS ?=
EVIDENCE_ARGS ?=
DOCS_ARGS ?=

# The interpreter that runs the installer. Which one goes into the environment
# is the installer's decision unless PYTHON is given.
DRIVER = $(if $(shell command -v python3),python3,$(or $(PYTHON),python3))
INSTALL = $(DRIVER) tools/install.py --venv '$(VENV)' \
	$(if $(PYTHON),--python '$(PYTHON)') \
	$(if $(TORCH),--torch '$(TORCH)') \
	$(if $(TORCHVISION),--torchvision '$(TORCHVISION)') \
	$(if $(STACK),--stack '$(STACK)') \
	$(if $(OPS),--ops '$(OPS)')

# As many processes as the machine has processors, each of one thread: tests
# of threads ask for them. TEST_ARGS='-n 0' runs the tests in one process.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --maxprocesses 8 \
	--dist worksteal

.PHONY: help install doctor demo test test-fast fuzz lint docs bench soak \
	gpu-check gpu-evidence clean distclean

help:
	@echo 'make install    create $(VENV) with torch, OpenMMLab and mmrkkd'
	@echo '                options: PYTHON= TORCH= TORCHVISION= VENV='
	@echo '                STACK=onedl|openmmlab OPS=auto|cpu|cuda'
	@echo 'make doctor     check the installed stack and say what to mend'
	@echo 'make demo       train, distil and compare on a generated data set'
	@echo 'make test       run the tests (TEST_ARGS= is passed to pytest)'
	@echo 'make test-fast  run those that take less than about two seconds'
	@echo 'make fuzz       run thousands of random cases (FUZZ_EXAMPLES= a test)'
	@echo 'make lint       check style and spelling'
	@echo 'make docs       build the documentation site in site/'
	@echo 'make bench      measure speed and memory of the losses'
	@echo 'make soak       distil for an hour, watching memory, files and time'
	@echo 'make gpu-check  everything that needs a GPU, in eight minutes; installs'
	@echo '                nothing (GPU_PY= the Python, GPU_ARGS= see --help)'
	@echo 'make gpu-evidence  teacher and students on photos, in nine minutes of a'
	@echo '                GPU (EVIDENCE_ARGS= --data DIR --out DIR, see --help)'
	@echo 'make clean      remove what builds and test runs leave behind'
	@echo 'make distclean  remove $(VENV) as well'

install:
	@$(INSTALL)

doctor:
	@$(if $(HAS_PY),$(PY),$(DRIVER)) tools/doctor.py

demo: install
	$(PY) tools/demo.py $(DEMO_ARGS)

test: install
	$(PYTEST) -ra --durations=10 $(TEST_ARGS)

test-fast: install
	$(PYTEST) -m 'not slow' $(TEST_ARGS)

fuzz: install
	MMRKKD_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PYTEST) tests/fuzz $(TEST_ARGS)

lint: install
	$(PY) -m ruff check --output-format concise .
	$(PY) -m ruff format --check --output-format concise .
	$(PY) -m codespell_lib .

docs: install
	$(PY) docs/site/build.py $(DOCS_ARGS)

bench: install
	$(PY) tools/benchmarks/run.py $(BENCH_ARGS)

soak: install
	$(PY) tools/soak.py $(SOAK_ARGS)

gpu-check:
	$(GPU_PY) tools/gpu/check.py $(GPU_ARGS)

gpu-evidence:
	$(GPU_PY) tools/gpu/evidence.py $(EVIDENCE_ARGS)

clean:
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find mmrkkd tools tests configs -name __pycache__ -prune \
		-exec rm -rf {} +

distclean: clean
	rm -rf '$(VENV)'
