# `make` lists what there is. Every recipe is one script or one command, so that each can be run by hand too.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DIST := $(TARGET_DIR)/dist

.PHONY: help setup build demo test bench chaos torture histories fuzz check fmt lint protos deny install uninstall clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the system packages that are missing (sudo when not root)
	@scripts/setup.sh

build: ## bangerd, banger and the static banger-agent, optimised, into target/dist/
	@scripts/build.sh release $(DIST)

demo: ## install, build, pull a real image, boot it, run commands in it; clean up
	@scripts/demo.sh

test: ## the whole suite, with real VMs; exactly what CI runs after `make setup`
	@scripts/test.sh

bench: ## the figures of docs/performance.md, measured on this machine
	@scripts/bench.sh

chaos: ## disturb VMs at many more random points than `make test` does (CHAOS_POINTS, CHAOS_VM_POINTS)
	@scripts/chaos.sh

torture: ## kill bangerd under sessions at full speed many more times than `make test` does (TORTURE_KILLS=300)
	@scripts/torture.sh

histories: ## carry many more random git histories into workspaces and back than `make test` does, and kill at more points (WORKSPACE_CASES=1000, WORKSPACE_KILLS=100, BANGER_VM_HISTORIES=30)
	@scripts/histories.sh

fuzz: ## search for bytes that break the readers of hostile bytes (FUZZ_SECONDS=60 each)
	@scripts/fuzz.sh

check: ## the quick half of `make test`: format, lints, unit tests; no VM
	@scripts/test.sh --quick

fmt: ## format the code
	$(CARGO) fmt --all

lint: ## clippy with every warning an error
	$(CARGO) clippy --workspace --all-targets -- -D warnings

protos: ## generate the code of the contracts again
	BANGER_REGENERATE=1 $(CARGO) test -p banger-proto
	@scripts/python-env.sh
	$(TARGET_DIR)/python/bin/python sdk-python/generate.py

deny: ## licences, sources and advisories of the dependencies, as far as they can be asked here
	@scripts/deny.sh

install: build ## bangerd, banger and banger-agent under PREFIX (/usr/local), completions, example configuration
	@scripts/install.sh $(DIST) "$(DESTDIR)" "$(PREFIX)"

uninstall: ## remove what `make install` put there
	@scripts/install.sh --remove "$(DESTDIR)" "$(PREFIX)"

clean: ## remove what was built; the demo's state too
	@scripts/demo.sh --stop
	rm -rf .demo
	$(CARGO) clean
