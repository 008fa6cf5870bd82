# Every target works in a fresh clone: it sets up first what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ROOMS := protos mesh control tokenizer-svc worker cache-svc gateway cli
SOURCES := $(filter-out protos/src,$(wildcard $(ROOMS:%=%/src)))
# Whole meshes first: they take longest and mostly wait, so that what computes fills the gaps.
SUITES := $(wildcard tests cli/tests $(patsubst %,%/tests,$(filter-out cli,$(ROOMS))))
# Four files run side by side, in this order, each with one thread for arithmetic: threads that wait for one another's
# cores burn more than they compute. The long suite runs alone, since it measures.
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 4
# The tests start hundreds of processes: byte code is kept, so that what one compiled the next need not compile.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

.PHONY: setup
setup: $(READY) ## make .venv with everything in it (plain pip)

$(READY): requirements-dev.txt constraints.txt $(wildcard $(ROOMS:%=%/pyproject.toml) $(ROOMS:%=%/setup.py))
	@test -x $(BIN)/python || { echo "setup: making .venv"; $(PYTHON) -m venv .venv; }
	@echo "setup: installing requirements-dev.txt (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
	    -r requirements-dev.txt -c constraints.txt
	@touch $@
	@echo "setup: done; try: $(BIN)/serin up"

.PHONY: demo
demo: $(READY) ## start a whole mesh, ask the demo model a question, stop again
	@$(BIN)/serin demo

.PHONY: test
test: $(READY) ## every test but the long ones
	OMP_NUM_THREADS=1 $(PYTEST) -m "not long" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(SUITES)

.PHONY: test-long
test-long: $(READY) ## the tests that take longer
	$(PYTEST) -m long $(SUITES)

.PHONY: judges
judges: $(READY) ## clients and a model of others, each in an environment of its own, and a running mesh (downloads them once)
	$(PYTEST) -m long -s tests/judges

.PHONY: check
check: $(READY) lint types imports buf stubs ## everything a reviewer's machine can check

.PHONY: lint
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(READY)
	$(BIN)/mypy $(SOURCES)

.PHONY: imports
imports: $(READY)
	$(BIN)/lint-imports --config .importlinter

# Against the main branch as it was published; where a clone has none, against the last commit.
.PHONY: buf
buf: $(READY)
	$(BIN)/buf lint protos
	@against=$$(git rev-parse -q --verify origin/main || git rev-parse -q --verify HEAD || true); \
	if [ -z "$$against" ]; then echo "buf breaking: skipped, this is no git checkout"; \
	else echo "buf breaking against $$against"; \
	  $(BIN)/buf breaking protos --against ".git#ref=$$against,subdir=protos"; fi

.PHONY: stubs
stubs: $(READY)
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	bash protos/generate.sh "$$scratch"; \
	for package in serin xds; do \
	  diff -r -q -x __pycache__ "$$scratch/$$package" "protos/src/$$package" || \
	    { echo "stubs: protos/src/$$package is not what the proto files make; run: make protos"; exit 1; }; done; \
	echo "stubs: up to date"

.PHONY: protos
protos: $(READY) ## write the stubs from the proto files
	bash protos/generate.sh

.PHONY: format
format: $(READY) ## let ruff order and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: dist
dist: $(READY) ## a wheel of every distribution in dist/
	@rm -rf dist && mkdir dist
	@for room in $(ROOMS); do echo "dist: $$room"; rm -rf "$$room/build"; \
	  $(BIN)/python -m build --wheel --outdir dist "$$room" >"dist/$$room.log" 2>&1 || { tail -n 30 "dist/$$room.log"; exit 1; }; \
	  rm -f "dist/$$room.log"; rm -rf "$$room/build"; done
	@ls dist

# Without MODEL: the bench model, which is made once (1.2 GB of random weights).
BENCH_MODEL := $(or $(MODEL),build/bench/model)
PRECISION ?= bf16

.PHONY: bench-engine
bench-engine: $(READY) ## tokens a second of the engine alone (MODEL=DIR PRECISION=bf16), or beside others (PEERS=DIR)
	@test -n "$(MODEL)" || $(BIN)/python tests/bench/make_model.py $(BENCH_MODEL)
	$(if $(PEERS),$(BIN)/python tests/bench/engine_peers.py --model $(BENCH_MODEL) --peers $(PEERS),\
	  $(BIN)/python tests/bench/engine.py --model $(BENCH_MODEL) --precision $(PRECISION))

.PHONY: bench-gpu
bench-gpu: $(READY) ## the engine on a CUDA device beside what the card allows, on random weights of published shapes
	$(BIN)/python tests/bench/gpu.py

.PHONY: bench-mesh
bench-mesh: $(READY) ## what the mesh costs on top of the engine (MODEL=DIR)
	$(BIN)/python tests/bench/mesh.py --model $(BENCH_MODEL)

.PHONY: bench-serving
bench-serving: $(READY) ## what the engine promises under load, each figure beside its goal (MODEL=DIR; half an hour)
	$(BIN)/python tests/bench/serving.py --model $(BENCH_MODEL)

.PHONY: bench-gateway
bench-gateway: $(READY) ## our gateway beside LiteLLM's proxy, per CPU second (REQUESTS=100000 for its memory)
	$(BIN)/python tests/bench/gateway.py --requests $(or $(REQUESTS),100000)

.PHONY: bench-rollout
bench-rollout: $(READY) ## thousands of simulated rollouts: is the judge right (RUNS=1000; an hour on two idle cores)
	$(BIN)/python tests/bench/rollout.py --runs $(or $(RUNS),1000) --docs docs/rollouts

.PHONY: bench-rollout-real
bench-rollout-real: $(READY) ## real rollouts in a real mesh, good and bad ones (RUNS=2 of each; an hour on two idle cores)
	$(BIN)/python tests/bench/rollout_real.py --runs $(or $(RUNS),2) --docs docs/rollouts

.PHONY: bench-cascade
bench-cascade: $(READY) ## what cascades of the demo models cost and how good they are, rule by rule (half an hour)
	$(BIN)/python tests/bench/cascade.py --docs docs

.PHONY: bench-control
bench-control: $(READY) ## how fast a weight change reaches everybody; what a restart of the control plane costs
	$(BIN)/python tests/bench/control.py

.PHONY: constraints
constraints: $(READY) ## pin the versions that are installed now
	@{ echo "# The versions this repository is tested with. Renewed by: make constraints"; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' | LC_ALL=C sort -f; \
	 } > constraints.txt.new && mv constraints.txt.new constraints.txt
	@touch $(READY)
	@echo "constraints: $$(grep -c == constraints.txt) versions"
