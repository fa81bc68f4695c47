# Everything runs in .venv, which `make build` fills; caches live in the working tree.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
FUZZ_S ?= 60
HOSTS ?= 5000
BIN := $(VENV)/bin
RUST_SOURCES := $(shell find rust -name '*.rs' -not -path '*/target/*' 2>/dev/null) $(wildcard rust/*/Cargo.toml) Cargo.toml Cargo.lock
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi' -o -path 'python/overlaynet/data/*')

PACKAGES := iproute2:ip etcd-server:etcd etcd-client:etcdctl nftables:nft iperf3:iperf3 tcpdump:tcpdump ethtool:ethtool iputils-ping:ping curl:curl gcc:cc tshark:tshark systemd:systemd-analyze util-linux:setpriv

.PHONY: bench bench-breaking bench-control bench-data bench-healing bench-restarts bench-simulation help build demo test soak fuzz check system wheel lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

system: ## Install the Debian packages that are missing
	@missing=(); for pair in $(PACKAGES); do command -v "$${pair#*:}" >/dev/null || missing+=("$${pair%%:*}"); done; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv); \
	if (($${#missing[@]})); then \
	  command -v apt-get >/dev/null || { echo "missing: $${missing[*]}: install them" >&2; exit 1; }; \
	  DEBIAN_FRONTEND=noninteractive apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"; \
	fi

$(BIN)/.tools: requirements/dev.txt
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust (https://rustup.rs)" >&2; exit 1; }
	@python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python %d.%d is too old: 3.11 or later" % sys.version_info[:2])'
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

# The compiled module and the console scripts, with the Python sources taken from the working tree.
$(BIN)/.built: $(BIN)/.tools $(RUST_SOURCES) pyproject.toml
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --locked --quiet
	touch $@

build: system $(BIN)/.built ## Build .venv with the package and every tool

wheel: $(BIN)/.tools ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist

demo: build ## Bring three hosts up for each backend, move data, take them down
	$(BIN)/overlaynet lab demo

bench-data: build ## Measure the data plane, into benches/results/ and the tables made of it
	$(BIN)/overlaynet lab bench --json benches/results/data-plane.json
	$(BIN)/overlaynet lab bench --link veth --rounds 3 --json benches/results/offloads.json \
	  --paths udp,udp-no-tso,udp-no-uso,udp-no-gso,udp-no-gro,udp-no-batch,udp-no-poll
	$(BIN)/python benches/readme_tables.py

bench-breaking: build ## Break hosts at random for ten minutes, into benches/results/reliability.json (as root)
	$(BIN)/python benches/lab/breaking.py
	$(BIN)/python benches/readme_tables.py

bench-healing: build ## Measure how soon each breakage is healed, into benches/results/healing.json (as root)
	$(BIN)/python benches/lab/healing.py
	$(BIN)/python benches/readme_tables.py

bench-control: build ## Measure what 10,000 peers cost the control plane, into benches/results/control-plane.json (as root)
	$(BIN)/python -m benches.lab.control_plane
	$(BIN)/python benches/readme_tables.py

bench-restarts: build ## Measure what a daemon's end and its next start cost traffic, into benches/results/
	$(BIN)/python benches/lab/restarts.py

bench-simulation: build ## Simulate networks of up to HOSTS hosts, into benches/results/simulation.json and docs/scale.md
	$(BIN)/overlaynet lab simulate --hosts $(HOSTS) --json benches/results/simulation.json --plot docs/scale.svg
	$(BIN)/python benches/readme_tables.py

check: build ## Format, lint, types, docs, import contracts
	cargo fmt --all --check
	$(BIN)/ruff format --check --quiet python tests benches
	$(BIN)/ruff check --quiet python tests benches
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	cargo fmt --check --manifest-path benches/rust/Cargo.toml
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet
	@! grep -nE '://' requirements/*.txt || { echo "requirements/*.txt must not name a host" >&2; exit 1; }

lock: $(BIN)/.tools ## Choose the newest tools and dependencies anew, into requirements/dev.txt and Cargo.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate requirements/etcd3.in -o requirements/etcd3.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate requirements/bench.in -o requirements/bench.txt
	cargo update

test: build ## The whole test suite, lab included (as root)
	@test "$$(id -u)" = 0 || { echo "make test needs root: it makes network namespaces" >&2; exit 1; }
	cargo test --workspace --locked --quiet
	RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=target/loom cargo test --locked --quiet -p overlaynet-io --lib seats
	$(BIN)/pytest -n 2 --dist loadfile

soak: build ## The long versions of tests: ten minutes and more (as root)
	@test "$$(id -u)" = 0 || { echo "make soak needs root: it makes network namespaces" >&2; exit 1; }
	$(BIN)/pytest -m soak --timeout 1800

fuzz: ## Fuzz decoding, forwarding, netlink, the table and offloads, FUZZ_S seconds each (needs a nightly Rust)
	@cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal || { \
	  echo "make fuzz needs a nightly Rust; cargo test -p overlaynet-core --test any_bytes checks the same without one" >&2; exit 1; }
	test -x .cache/fuzz/bin/cargo-fuzz || cargo install --quiet --locked --root .cache/fuzz cargo-fuzz
	for target in $$(.cache/fuzz/bin/cargo-fuzz list --fuzz-dir rust/fuzz); do \
	  CARGO_TARGET_DIR=target/fuzz PATH="$(CURDIR)/.cache/fuzz/bin:$$PATH" \
	    cargo +nightly fuzz run --fuzz-dir rust/fuzz "$$target" -- -max_total_time=$(FUZZ_S) -print_final_stats=0; \
	done

.cache/bench/.installed: requirements/bench.txt $(BIN)/.tools
	rm -rf .cache/bench
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --target .cache/bench -r $<
	touch $@

bench: build .cache/bench/.installed ## Measure the library against its peers, into benches/results/library.json
	cargo run --release --locked --manifest-path benches/rust/Cargo.toml -- --json .cache/bench/rust.json
	PYTHONPATH=.cache/bench $(BIN)/python -W ignore -m benches.python.library .cache/bench/rust.json
	$(BIN)/python benches/readme_tables.py

bench-etcd: build ## Measure the etcd store with 2,000 leases, into benches/results/etcd.json
	$(BIN)/python benches/lab/etcd_scale.py

clean: ## Remove what was built
	rm -rf $(VENV) target dist .cache
