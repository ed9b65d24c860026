# What can be done here. Every target has its line in `make help`.

CARGO ?= cargo
.DEFAULT_GOAL := help
.PHONY: help demo test law fuzz model chaos compat overload lint microbench instructions bench dashboards build image servers screenshots clean

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## watch it work: servers, tidegate and many users, until Ctrl-C or for DEMO_SECONDS
	@scripts/servers.sh demo
	@$(CARGO) build --release --locked --bin tidegate --example demo
	@$(CARGO) run --release --locked --quiet --example demo

test: servers instructions ## run all tests against real servers, with a real browser
	@$(CARGO) test --locked --doc --quiet
	@if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --locked --no-fail-fast; \
	else $(CARGO) test --locked --no-fail-fast --lib --bins --tests; fi

CASES ?= 100000
law: servers ## hold coalescing against a real server: CASES=n random sequences, SEED=n to repeat a run
	@LAW_CASES=$(CASES) LAW_SEED=$(or $(SEED),$(shell date +%s)) $(CARGO) test --locked --lib coalescing_keeps_the_law -- --nocapture

EVENTS ?= 1000000
fuzz: servers ## push hostile events through the daemon: EVENTS=n of them, SEED=n to repeat a run
	@FUZZ_EVENTS=$(EVENTS) FUZZ_SEED=$(or $(SEED),$(shell date +%s)) $(CARGO) test --locked --test suite hostile_events -- --nocapture

model: ## check the model of the delivery protocol within larger bounds: MODEL_BOUNDS=small for those of the tests
	@MODEL_BOUNDS=$(or $(MODEL_BOUNDS),large) $(CARGO) test --locked --test model -- --nocapture

ROUNDS ?= 200
chaos: servers ## kill, stall and cut off everything under load: ROUNDS=n; SEED=n FIRST=n FAULT=text to repeat some
	@$(CARGO) build --locked --release --bin tidegate
	@CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(or $(SEED),$(shell date +%s)) CHAOS_FIRST=$(or $(FIRST),0) CHAOS_FAULT='$(FAULT)' \
	$(if $(CLUSTER),CHAOS_CLUSTER_ROUNDS=$(ROUNDS)) $(CARGO) test --locked --test chaos $(if $(CLUSTER),cluster::cluster_campaign,campaign) -- --exact --nocapture

compat: servers ## run the suites of queues against Redis 6.2, 7 and 8 and Valkey, into docs/compatibility.md
	@CARGO='$(CARGO)' scripts/compat.sh

OVERLOAD_SECONDS ?= 180
overload: servers ## push ten times what MongoDB takes, for OVERLOAD_SECONDS: memory stays bounded, nothing is lost
	@OVERLOAD_SECONDS=$(OVERLOAD_SECONDS) $(CARGO) test --locked --test suite ten_times_what_mongodb_takes -- --nocapture

lint: ## check formatting, clippy, docs and the length of sentences, with warnings denied
	@scripts/sentences.sh self-test
	@scripts/sentences.sh
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

microbench: ## measure decode, route, fold and encode in nanoseconds an event
	$(CARGO) bench --locked --bench pipeline

instructions: ## count the instructions an event takes, and hold them to what is recorded: RECORD=1 to record them
	@scripts/instructions.sh $(if $(RECORD),record)

bench: ROUNDS :=
bench: ## measure tidegate against bare loops and other workers: QUICK=1 for two minutes, ONLY=hot,latency for some steps
	@scripts/servers.sh demo
	@QUICK=$(QUICK) ONLY=$(ONLY) ROUNDS=$(ROUNDS) $(CARGO) bench --locked --bench throughput

dashboards: ## check the dashboards against Grafana's schema; needs npm
	@scripts/dashboards.sh

build: ## build the release binary
	$(CARGO) build --release --locked

image: ## build the Dockerfile's image without a registry, as root on Debian, and try it
	@scripts/image.sh

servers: ## make sure that Redis, a MongoDB server, Prometheus and Chromium are installed (as root, or it says what to install)
	@scripts/servers.sh

SCREENSHOTS := $(CURDIR)/target/screenshots
screenshots: servers ## picture the pages for the README; takes three minutes and the port 9464
	SCREENSHOTS=$(SCREENSHOTS) $(CARGO) test --locked --test suite screenshots -- --ignored
	mkdir -p docs/images
	cp $(SCREENSHOTS)/status-page.png $(SCREENSHOTS)/collab.png docs/images/

clean: ## remove everything that was built, the MongoDB server too
	$(CARGO) clean
	rm -rf .servers
