# Every step sets up what it needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

HOSTS ?= 6
LAB ?= staging
RUNS ?= 100
FIRST ?= 1

COLLECTION := collections/ansible_collections/convoy/rollout
BIN := $(CURDIR)/.venv/bin
PYTHON_VERSION = $(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
export PATH := $(BIN):$(PATH)

# Debian's packages that bring a command, where it is missing; PostgreSQL's are off the PATH there.
installed = command -v $(1) /usr/lib/postgresql/*/bin/$(1) >/dev/null || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq -y --no-install-recommends $(2); }

.PHONY: help env tools lab lab-down deploy test lint types unit project controller ledger traffic sanity galaxy matrix hardening integration e2e bench chaos prove prove-coordinator prove-archives prove-power prove-kills prove-roads molecule format changelog lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: ## .venv from the pinned requirements
	@requirements/install

lab: ## bring the lab up: HOSTS=6 application hosts and HAProxy, LAB=staging
	@$(SUDO) lab/lab up $(LAB) --hosts $(HOSTS)

lab-down: ## remove the lab: LAB=staging
	@$(SUDO) lab/lab down $(LAB)

deploy: env lab ## publish the example, deploy 1.0.0, roll 1.1.0 out over the lab
	@examples/tour

test: tools ## everything that .ci/run checks; what needs one core only goes two at a time, the longest first
	$(MAKE) lint types unit project
	$(MAKE) --jobs 2 --output-sync=target --old-file=tools --old-file=env e2e controller integration sanity ledger traffic molecule galaxy matrix hardening chaos RUNS=10

tools: env ## the programs of Debian that tests use
	@$(call installed,initdb,postgresql)
	@$(call installed,/usr/sbin/nginx,nginx-light)
	@$(call installed,cc,gcc libc6-dev)
	@$(call installed,gpg,gnupg)
	@tests/sshd

lint: env ## ruff, vermin (Python 3.8 on targets), ansible-lint, changelog fragments
	ruff check .
	ruff format --check --quiet . || { echo 'run: make format'; exit 1; }
	vermin --quiet --no-tips --target=3.8- --violations $(COLLECTION)/plugins/modules $(COLLECTION)/plugins/module_utils
	@# ansible.cfg refuses to run without an inventory, and ansible-lint would name none.
	ANSIBLE_INVENTORY=inventories/staging ansible-lint
	cd $(COLLECTION) && antsibull-changelog lint

types: env ## mypy --strict
	mypy
	MYPYPATH=collections:. mypy tests/chaos tests/hardening

unit: env ## unit tests of the collection, by ansible-test
	tests/ansible-test units --local --python $(PYTHON_VERSION)

project: env ## tests of the example, the lab's program, and what the project's files promise
	python -m pytest -n auto tests/project tests/examples tests/lab

controller: tools ## the playbooks against this machine alone: bad input, and what a site adds
	python -m pytest -n auto tests/controller

ledger: tools ## the ledger in a real PostgreSQL, and used by many processes at once
	python -m pytest tests/ledger

traffic: tools ## the traffic adapter nginx against a real nginx of its own
	python -m pytest tests/traffic

sanity: env ## ansible-test sanity with every Python found here, no ignores
	tests/ansible-test sanity --local

galaxy: env ## build the collection, check it as Galaxy does, lint its documentation
	tests/galaxy

matrix: env ## unit tests under ansible-core 2.21, of target code under Python 3.8; MATRIX=every for all between
	tests/matrix

hardening: env ## power cuts in the middle of deployments, over an ext4 on a loop device
	$(SUDO) env PYTHONPATH=collections $(BIN)/python -m pytest -p no:cacheprovider -rs tests/hardening

integration: tools ## the modules on real hosts, over a lab of their own, named modules
	tests/in-lab modules 3 python -m pytest -m 'not long' $(wildcard tests/integration/test_*_module.py)

e2e: tools ## the roads of a deployment, and faults on them, over two labs of their own, named test and test2
	tests/in-lab test,test2 $(HOSTS) python -m pytest -n 2 --dist loadfile -o timeout=1500 -m 'not long' $(filter-out %_module.py,$(wildcard tests/integration/test_*.py))

chaos: tools ## RUNS=100 rollouts of 8 hosts with a fault in each, from seed FIRST=1 on, over a lab of their own, named chaos
	tests/in-lab chaos 8 $(SUDO) env CONVOY_LAB=chaos PYTHONPATH=collections $(BIN)/python -m tests.chaos.campaign --runs $(RUNS) --first $(FIRST) $(CHAOS)

bench: env ## measure ledger, coordinator, judges, deployments, many hosts and transfer; writes docs/benchmarks.md, docs/judges.md, and parts of docs/speed.md and docs/transfer.md anew
	bench/benchmarks
	bench/judges
	bench/deployment
	bench/scale
	bench/transfer

prove: prove-coordinator prove-archives prove-power prove-kills prove-roads ## the five proofs below, one after the other

prove-coordinator: env ## 10,000 histories of the coordinator instead of 300: half an hour
	CONVOY_HISTORIES=10000 python -m pytest -n auto -o timeout=0 $(COLLECTION)/tests/unit/plugins/plugin_utils/coordinator/test_rollouts_always.py

prove-archives: env ## 2,000 changed archives for each of 11 properties instead of 100; hostile ones on a real host
	CONVOY_EXAMPLES=2000 python -m pytest -n auto -o timeout=0 $(COLLECTION)/tests/unit/plugins/module_utils/test_unpack_fuzzed.py
	tests/in-lab prove 1 python -m pytest -s tests/integration/test_hostile_module.py

prove-power: env ## a power cut at every moment of three roads instead of four of each
	$(SUDO) env PYTHONPATH=collections CONVOY_CUTS=0 $(BIN)/python -m pytest -p no:cacheprovider -rs -s -o timeout=0 tests/hardening

prove-kills: env ## the module release killed 20 times at every step, and once at every other moment
	CONVOY_KILLS=20 CONVOY_KILLS_ELSEWHERE=1 tests/in-lab prove 3 python -m pytest -s -o timeout=0 tests/integration/test_kills_module.py

prove-roads: tools ## all tests over hosts, with those that are marked as long, which make test leaves out
	tests/in-lab prove,prove2 $(HOSTS) python -m pytest -n 2 --dist loadfile -o timeout=1500 tests/integration

molecule: env ## molecule's scenarios over a lab of their own, named molecule
	tests/molecule test --all

format: env ## format the Python code
	ruff check --fix-only --quiet --select I .
	ruff format --quiet .

changelog: env ## take the changelog's fragments and the list of plugins into the version that galaxy.yml names
	cd $(COLLECTION) && antsibull-changelog release --update-existing --reload-plugins

lock: env ## pin the requirements anew
	requirements/lock

clean: ## remove caches and what the tests left; not .venv, not the lab, not .convoy
	rm -rf .cache $(COLLECTION)/tests/output
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
