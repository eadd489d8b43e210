# `make` lists the targets. Everything here is a short way to type something in deploy/dev or cargo.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

SERVICES := docker rabbitmq redis postgres objects
FLAKEFARM := target/debug/flakefarm
# The example sweep: adaptive, small enough to watch.
DEMO_ARGS ?= --max-flake-rate 0.1 --seed 1
# Arguments of flakefarm bench.
BENCH_ARGS ?=
# make test-stress: rounds, processes that burn a CPU each (empty: as many as CPUs), the seed of the first
# round's order (empty: drawn), arguments of the test runner.
STRESS_ROUNDS ?= 5
STRESS_BURNERS ?=
STRESS_SEED ?=
STRESS_ARGS ?=
# Arguments of tests/peers/peers.py.
PEERS_ARGS ?=
# Arguments of tests/cases/sweep.py: the projects, and where their sources are.
CASES_ARGS ?=

.PHONY: help demo bench bench-readme forecast test test-stress faults fuzz lint services-up services-down services-status base-image cases causes peers repairs picture manifests dist images build toolchain alerts release scaling soak overhead backup-drill upgrade-drill openapi latency

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

toolchain:
	@command -v cargo >/dev/null || { \
	  echo "error: cargo is not installed: flakefarm is built with Rust 1.94 or newer" >&2; \
	  echo "hint: install rustup, then: rustup toolchain install stable" >&2; exit 1; }

build: toolchain ## Build the binary (debug)
	cargo build --locked -p flakefarm

demo: build ## Sweep the example project with known flaky tests; writes report.html
	@deploy/dev/with-services docker -- deploy/dev/demo $(FLAKEFARM) $(DEMO_ARGS)

bench: toolchain ## Measure attempts at each level, other ways and the control plane: make bench BENCH_ARGS=--quick
	cargo build --locked --release -p flakefarm
	@deploy/dev/bench target/release/flakefarm $(BENCH_ARGS)

bench-readme: bench ## The same, and write the README's table from it
	@deploy/dev/readme-table target/bench/summary.md README.md

FORECAST_ARGS ?=

forecast: build ## Judge forecasts on simulated projects, and on one's own history: make forecast FORECAST_ARGS='--project NAME'
	$(FLAKEFARM) forecast --simulated 1
	@[[ -z '$(FORECAST_ARGS)' ]] || $(FLAKEFARM) forecast $(FORECAST_ARGS)

test: toolchain ## Run every test on real services, started and stopped around it
	@deploy/dev/with-services $(SERVICES) -- deploy/dev/test

test-stress: toolchain ## The whole suite five times, in shuffled orders, beside processes that burn the CPUs
	@ROUNDS='$(STRESS_ROUNDS)' BURNERS='$(STRESS_BURNERS)' SEED='$(STRESS_SEED)' \
	  deploy/dev/with-services $(SERVICES) -- deploy/dev/stress $(STRESS_ARGS)

# Schedules of `make faults`, and seconds that a server is away in it.
SCHEDULES ?= 200
AWAY ?= 30

faults: toolchain ## Seeded schedules of faults on real servers: make faults SCHEDULES=200 AWAY=30
	@FLAKEFARM_FAULT_SCHEDULES=$(SCHEDULES) FLAKEFARM_FAULT_AWAY=$(AWAY) FLAKEFARM_FAULT_DRAINS=50 \
	  deploy/dev/with-services rabbitmq redis postgres -- bash -c \
	  'source deploy/dev/lib/common.sh && source deploy/dev/lib/programs.sh && test_programs && \
	   cargo build --locked --workspace && cargo test --locked -p flakefarm-tests --test fault_schedules -- --test-threads=1 --nocapture'

# Seconds for each reader in `make fuzz`.
FUZZ_SECONDS ?= 60

fuzz: toolchain ## Feed every reader of outside input with damaged input: make fuzz FUZZ_SECONDS=600
	FLAKEFARM_FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --locked --workspace --test fuzz no_reader -- --nocapture

lint: toolchain ## Format check, clippy without warnings, licences and advisories
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; \
	  else echo "cargo-deny is not installed: licences and sources not checked (cargo install cargo-deny)" >&2; fi

services-up: ## Start RabbitMQ, Redis, PostgreSQL, an object store and, if none answers, Docker
	@deploy/dev/services up $(SERVICES)
	@deploy/dev/base-image
	@echo 'eval "$$(deploy/dev/services env)"   # to point a shell at them'

services-down: ## Stop what services-up started
	@deploy/dev/services down $(SERVICES)

services-status: ## What runs, and where
	@deploy/dev/services status

base-image: ## Make the image that tests and the example run in
	@deploy/dev/base-image

cases: build ## Sweep real projects: make cases CASES_ARGS='--cases FILE --mirror DIR'
	@[[ -n '$(CASES_ARGS)' ]] || { \
	  echo "error: no cases were named" >&2; \
	  echo "hint: make cases CASES_ARGS='--cases FILE --sources DIR' (see tests/cases/README.md)" >&2; exit 2; }
	@deploy/dev/with-services docker -- python3 tests/cases/sweep.py --flakefarm $(FLAKEFARM) $(CASES_ARGS)

peers: toolchain ## Compare with other ways to find flaky tests, the same time each; writes docs/peers.md
	cargo build --locked --release -p flakefarm
	@deploy/dev/with-services docker -- python3 tests/peers/peers.py --flakefarm target/release/flakefarm \
	  --write-docs docs/peers.md $(PEERS_ARGS)

# Arguments of tests/repairs/repairs.py.
REPAIRS_ARGS ?=

repairs: toolchain ## Break packages in known ways, repair them and count: make repairs REPAIRS_ARGS='--instances 200 --controls 300'
	cargo build --locked -p flakefarm-repair --example propose
	@python3 tests/repairs/repairs.py $(REPAIRS_ARGS)

latency: release ## How soon `check` and the API answer, at rest and beside a bulk sweep of 100,000 attempts
	@deploy/dev/with-services $(SERVICES) -- python3 tests/latency/latency.py $(RELEASE)
	@deploy/dev/with-services $(SERVICES) -- python3 tests/latency/api.py $(RELEASE)

openapi: build ## Hold the HTTP interface's description to the standard and to the running server (tools from PyPI)
	@deploy/dev/with-services rabbitmq redis -- tests/openapi/check $(FLAKEFARM)

picture: ## Write the picture of crates and modules into ARCHITECTURE.md; fails on a circle
	deploy/dev/picture

manifests: toolchain ## Check Kubernetes manifests and the Helm chart, without a cluster (installs kubectl, helm and schemas)
	@deploy/kubernetes/check
	@deploy/kubernetes/check --self-test
	@python3 -B tests/drills/test_law.py -q

alerts: ## Show of each alert that it fires when it should (needs promtool)
	@deploy/kubernetes/alerts-test

# Servers of the drills' own, whose data may be lost; the engine is the one that answers.
DRILL := FLAKEFARM_DEV_DIR=$(CURDIR)/target/drill-services FLAKEFARM_DRILL_DIR=$(CURDIR)/target/drill-services \
  FLAKEFARM_DEV_RABBITMQ_PLUGINS=rabbitmq_management deploy/dev/with-services docker rabbitmq redis postgres --
# The same without an engine, and with a broker that has room for some thousand connections.
SOAK := FLAKEFARM_DEV_RABBITMQ_MEMORY=2GiB $(subst services docker rabbitmq,services rabbitmq,$(DRILL))
# FLAKEFARM_BINARY names a release that is built already, here as for make dist.
RELEASE := $(or $(FLAKEFARM_BINARY),target/release/flakefarm)
SOAK_ARGS ?= --write-docs docs/scale.md
SCALING_ARGS ?= --write-docs docs/scaling.md
# make upgrade-drill: the binary of the version before.
OLD ?=

release: $(if $(FLAKEFARM_BINARY),,toolchain)
	@$(if $(FLAKEFARM_BINARY),:,cargo build --locked --release -p flakefarm)

scaling: release ## KEDA and the kubelet, played on the real broker: a burst scales from none to eight workers and back; writes docs/scaling.md
	@$(DRILL) python3 tests/drills/scaling.py --flakefarm $(RELEASE) $(SCALING_ARGS)

soak: release ## A million scripted attempts on 200 workers with faults all the time: make soak SOAK_ARGS='--attempts 20000 --workers 20'
	cargo build --locked --release -p flakefarm-tests --bin scripted_worker
	@$(SOAK) python3 tests/drills/soak.py --flakefarm $(RELEASE) --scripted-worker target/release/scripted_worker $(SOAK_ARGS)

overhead: release ## What metrics and traces cost the control plane, measured by turns
	@deploy/dev/overhead $(RELEASE)

backup-drill: release ## Copy a farm in a sweep, lose everything, restore: the sweep ends right
	@$(DRILL) python3 tests/drills/backup.py --flakefarm $(RELEASE)

upgrade-drill: release ## Replace every process of a farm in a sweep: make upgrade-drill OLD=BINARY
	@$(DRILL) bash -c 'for first in coordinators workers; do \
	  python3 tests/drills/upgrade.py --flakefarm $(RELEASE) $(if $(OLD),--old $(OLD)) --first $$first || exit; done'

dist: $(if $(FLAKEFARM_BINARY),,toolchain) ## Release binary with checksum, completions, man pages and a Debian package, into target/dist
	@deploy/dist

images: dist ## Container images of coordinator and worker, from target/dist: make images BASE=debian:bookworm-slim
	@deploy/images/build $(BASE)

causes: build ## Diagnose tests of known causes: a confusion matrix and the macro-F1
	@deploy/dev/with-services docker -- python3 tests/cases/causes.py --flakefarm $(FLAKEFARM)
