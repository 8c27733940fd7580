# wharf: `make demo` shows it, `make test` proves it; `make help` lists the rest. Debian 12 is expected.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

DEMO_PACKAGES := gcc libc6-dev iproute2 iputils-ping iperf3 ethtool
FUZZ_PACKAGES := g++ libclang-rt-16-dev
GATE_PACKAGES := valgrind
TEST_PACKAGES := $(DEMO_PACKAGES) $(FUZZ_PACKAGES) $(GATE_PACKAGES) procps util-linux python3-scapy tcpdump traceroute iputils-arping \
    clang llvm libbpf-dev
FUZZ_TARGETS := startup_conf config cli memif_messages memif_session graph bridge pg api api_sequence
# Seconds for each fuzz target.
FUZZ_SECONDS ?= $(if $(filter true,$(CI)),60,10)
BENCH := cargo run --release --quiet -p wharf-benches --
LOOM := RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release

.PHONY: help build demo run test test-unit test-kernel test-loom test-fuzz gate gate-update lint fmt bench bench-growth \
    bench-checks bench-attach bench-tcp bench-api bench-build fuzz xdp-check deny test-packages clean-netns
.DEFAULT_GOAL := help
# One after the other, also with -j: tests share the machine, and cargo uses all cores by itself.
.NOTPARALLEL:

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 14

build: ## the release binaries: target/release/wharf and wharfctl
	cargo build --release -p wharf

demo: ## two containers and a memif application talk through wharf (needs root)
	@tools/install.sh "the demo" $(DEMO_PACKAGES)
	cargo build --release -p wharf
	cargo build --release -p memif --example icmp_responder
	@tools/demo.sh

run: build ## the daemon in the foreground, by examples/startup.conf
	@mkdir -p /run/wharf
	target/release/wharf -c examples/startup.conf

test: test-packages xdp-check test-unit test-kernel gate test-fuzz test-loom ## everything (needs root; installs the peers)

test-packages:
	@tools/install.sh "the tests" $(TEST_PACKAGES)
	@tools/testpmd.sh
	@tools/ovs.sh
	@tools/unpack.sh prometheus usr/bin/prometheus prometheus
	@tools/papi.sh

test-unit: ## the tests without kernel and peers, side by side
	cargo test --workspace --lib --bins --examples
	cargo test --workspace --doc

test-kernel: test-packages ## the tests with the kernel and real peers, one after the other (needs root)
	WHARF_TEST_PEERS=1 cargo test --workspace --test '*' -- --test-threads=1

test-loom: ## ring indices, rcu and handoff under loom
	$(LOOM) -p memif --lib loom
	$(LOOM) -p wharf-engine --features checked --lib loom

test-fuzz: ## replay the fuzz corpus, then fuzz each target a little
	cargo test --manifest-path fuzz/Cargo.toml
	@rm -f $${CARGO_TARGET_DIR:-fuzz/target}/failed-*.log
	@printf '%s\n' $(FUZZ_TARGETS) | xargs -P 2 -I TARGET tools/fuzz.sh TARGET $(FUZZ_SECONDS) || \
	    { tail -n 20 $${CARGO_TARGET_DIR:-fuzz/target}/failed-*.log; exit 1; }

gate: ## instructions of the hot paths, at most 3 % above those of benches/instructions.json (valgrind)
	@tools/install.sh "counting instructions" $(GATE_PACKAGES)
	cargo run --release -p wharf-benches -- gate

gate-update: ## count anew, and write benches/instructions.json: commit it with the change it is for
	@tools/install.sh "counting instructions" $(GATE_PACKAGES)
	cargo run --release -p wharf-benches -- gate --update

lint: ## formatting, clippy and documentation without a warning
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --manifest-path fuzz/Cargo.toml --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

fmt: ## format all sources
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

bench: bench-build ## Mpps, cycles and latency of each path, beside dpdk-testpmd and the floor
	@tools/testpmd.sh
	$(BENCH)
	$(BENCH) latency

bench-growth: bench-build ## cycles a packet as routes, destinations, interfaces, vectors and packets grow
	$(BENCH) growth

bench-checks: bench-build ## cycles a packet of the cross-connect with and without the checks of a memif peer
	RUSTFLAGS="--cfg memif_unchecked" cargo build --release --target-dir target/unchecked -p wharf -p wharf-benches
	$(BENCH) checks --unchecked target/unchecked/release/wharf

bench-attach: bench-build ## how long a memif client takes from connect to its first packet, and what 256 silent ones cost
	$(BENCH) attach

bench-tcp: bench-build ## TCP by iperf3 over AF_XDP, beside a kernel bridge (needs root)
	@tools/install.sh "TCP" iperf3 iproute2 ethtool
	$(BENCH) tcp

bench-api: bench-build ## route messages a second over the API, and how long a ping takes under load
	$(BENCH) api

bench-build:
	cargo build --release -p wharf
	cargo build --release -p wharf-benches

fuzz: ## fuzz one target: make fuzz TARGET=graph FUZZ_SECONDS=600
	@tools/install.sh "fuzzing" $(FUZZ_PACKAGES)
	tools/fuzz.sh $(or $(TARGET),graph) $(FUZZ_SECONDS)

xdp-check: ## the committed XDP object is what its source compiles to
	drivers/xdp/check.sh

deny: ## licences and sources of all dependencies (needs cargo-deny)
	cargo deny check licenses bans sources
	cargo deny --manifest-path fuzz/Cargo.toml --config deny.toml check licenses bans sources

clean-netns: ## delete what killed tests and demos left: namespaces of processes that are gone
	@tools/clean-netns.sh
