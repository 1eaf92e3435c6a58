# The front door. `make help` lists what it can do.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH)
export SOLCX_BINARY_PATH := $(CURDIR)/tools/solcx
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# Ape keeps its own files beside the project's build, not in the home directory.
export APE_DATA_FOLDER ?= $(CURDIR)/.build/ape

.PHONY: help setup demo test lint types contracts abi vectors test-contracts fuzz test-python slither slither-write coverage mutation branches forge gas gas-check gas-scaling bench bench-delivery bench-calibration bench-text-speed bench-text bench-weights bench-image bench-image-finished bench-image-speed bench-image-model bench-image-weights peers clean lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## create .venv and node_modules from the lock files
	@scripts/setup.sh

demo: setup contracts ## play the whole story on a real node, real IPFS and a real model; writes build/demo/report.json
	$(PY) scripts/demo.py
	$(PY) scripts/check_report.py build/demo

test: setup lint types contracts gas-check slither test-contracts test-python ## everything CI checks

lint: setup ## format, lint, import contracts
	ruff format --check .
	ruff check .
	lint-imports
	$(PY) scripts/check_docs.py

types: setup ## mypy strict and pyright
	mypy
	pyright

contracts: setup ## compile with Ape; ABIs and golden vectors must not differ
	$(PY) scripts/compile_contracts.py
	$(PY) scripts/export_abi.py --check
	$(PY) scripts/contracts_rollout.py --check
	$(PY) scripts/make_vectors.py --check
	$(PY) scripts/vectors_eip712.py --check

abi: setup ## compile, write the ABIs and the development chain's address book into the SDK
	$(PY) scripts/compile_contracts.py
	$(PY) scripts/export_abi.py
	$(PY) scripts/contracts_rollout.py

vectors: setup ## regenerate tests/vectors
	$(PY) scripts/make_vectors.py
	$(PY) scripts/vectors_eip712.py

# Each stage has a node of its own: Ape rebases its snapshots when a session's fixture comes late, and balances go back with them.
APE_TEST := ape test --network ethereum:local:foundry
test-contracts: setup ## contract tests on real Anvil nodes: court, system, market
	$(APE_TEST) tests/contracts/court
	$(APE_TEST) tests/contracts/system
	$(APE_TEST) tests/contracts --ignore tests/contracts/court --ignore tests/contracts/system

FUZZ ?= 20
SEED ?= $(shell date +%s)
fuzz: setup contracts ## stateful and hostile tests with FUZZ (20) times as much as CI, walks twice as long, another way each time; SEED repeats one
	ZHIYI_FUZZ=$(FUZZ) ape test tests/contracts/system tests/contracts/test_hostile.py tests/contracts/test_purchase_stateful.py tests/contracts/court/test_case_stateful.py --network ethereum:local:foundry --hypothesis-seed=$(SEED)
	FOUNDRY_PROFILE=invariants forge test

test-python: setup ## every other test, the demo end to end included
	pytest -p no:ape_test tests --ignore tests/contracts

slither: setup ## static analysis; every finding has an answer in docs/slither.md
	$(PY) proof/slither_findings.py

slither-write: setup ## rows for new findings in docs/slither.md, still to be answered
	$(PY) proof/slither_findings.py --write

coverage: setup contracts ## docs/benchmarks/coverage.json: lines and branches of the contracts that the contract tests run
	$(PY) proof/coverage.py

mutation: setup contracts ## docs/mutation.json: do the tests notice wrong contracts? hours, resumable; needs `make coverage`
	$(PY) proof/mutation.py

branches: setup ## tests/contracts/branches: the branch lists as the contracts are; needs `make coverage` to name tests
	$(PY) proof/branches.py --write

forge: setup ## money is never made nor lost: forge's invariants over escrow and vault
	FOUNDRY_PROFILE=invariants forge test

gas: setup contracts ## docs/benchmarks/gas.json: gas of every operation against its budget
	$(PY) benchmarks/gas.py

gas-check: setup contracts ## fail when a step costs over 1 % more gas than the committed file says, or over its budget
	$(PY) benchmarks/gas.py --check

gas-scaling: setup contracts ## docs/benchmarks/scaling.json: gas with more ancestors, licenses, cases and operators (minutes)
	$(PY) benchmarks/gas_scaling.py

bench-delivery: setup ## docs/benchmarks/delivery.json: speed of preparing and verifying a copy
	$(PY) benchmarks/delivery.py

bench-calibration: setup ## docs/benchmarks/calibration.json: false positives of the marks on a million unmarked (key, object) pairs
	$(PY) benchmarks/calibration.py

bench-text: setup ## docs/benchmarks/text.json: text marks and peers under attack, from the kept texts; `make peers` for all of them
	$(PY) benchmarks/text_bench.py

bench-image: bench-image-finished $(if $(wildcard tests/models/tiny-image-lkd),bench-image-weights) bench-image-model ## docs/benchmarks/image.json: every mark of pictures beside its peers, one table of the three; hours, resumable

bench-image-finished: setup ## docs/benchmarks/image_finished.json: DSS and three peers on photographs under attack (fetches them once); `make peers` for all of them; hours, resumable
	$(PY) benchmarks/image_bench.py

bench-image-speed: setup ## docs/benchmarks/image_speed.json: what marking and reading a picture costs, beside RivaGAN; `make peers` for it
	$(PY) benchmarks/image_speed.py

bench-image-model: setup ## docs/benchmarks/image_generated.json: marks of generated pictures beside two peers, from what inversion gave and is kept
	$(PY) benchmarks/image_model_bench.py

bench-image-weights: setup ## docs/benchmarks/image_weights.json: the mark of decoders beside Stable Signature (hours, resumable; needs scripts/train_lkd.py, and benchmarks/peers/stable_signature.py for the peer)
	$(PY) benchmarks/lkd_bench.py

peers: setup ## environments of the benchmark's peers, under build/peers
	@benchmarks/peers/setup.sh

bench-text-speed: setup ## docs/benchmarks/text_speed.json: what marks cost at generation, how long detection takes
	$(PY) benchmarks/text_speed.py

bench-weights: setup ## docs/benchmarks/weights.json: marks in weights after every attack, and the quality left (an hour)
	$(PY) benchmarks/weights_bench.py

# A table whose target is missed ends with an error; the others are made all the same.
ifneq ($(filter bench,$(MAKECMDGOALS)),)
MAKEFLAGS += -k
endif
bench: gas gas-scaling bench-delivery bench-calibration bench-text bench-text-speed bench-weights bench-image-speed bench-image ## every benchmark; makes all tables and fails at the end if a target was missed

lock: ## resolve requirements.lock and package-lock.json anew
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -q -o requirements.lock
	npm install --package-lock-only --no-audit --no-fund --silent

clean: ## remove what was built; keeps .venv, node_modules and the model cache
	rm -rf build .build .forge .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
