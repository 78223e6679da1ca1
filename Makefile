# Every target does its own set-up. Always --workspace: cargo then chooses the same features, and builds once for all.
# Variables: CARGO (cargo), ARGS (for the demo), TESTFLAGS (for the test binaries).
CARGO ?= cargo
ARGS ?=
TESTFLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench lint clean tools native venv

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

demo: native ## Do the whole job on a built-in sample
	$(CARGO) build --workspace --bin vaplan
	@$${CARGO_TARGET_DIR:-target}/debug/vaplan demo $(ARGS)

test: native venv ## Run every test
	$(CARGO) test --workspace -- $(TESTFLAGS)

soak: tools ## Try the law (incremental equals batch) on 10,000 random scripts (VAPLAN_SOAK), and on 500 of stores and files (VAPLAN_SOAK_STORES)
	VAPLAN_SOAK=$${VAPLAN_SOAK:-10000} $(CARGO) test --workspace --test law -- --nocapture
	VAPLAN_SOAK=$${VAPLAN_SOAK_STORES:-500} $(CARGO) test --workspace --test main -- --nocapture relabel::law

bench: native venv ## Time against what users would pick instead; results in bench/README.md
	bench/run

lint: native ## What CI asks beside the tests: formatting, clippy, docs
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

clean: ## Remove what was built; the libraries of third_party/ (540 MB to fetch) stay
	$(CARGO) clean
	rm -rf .venv

tools:
	@for tool in $(CARGO) python3 c++; do \
		command -v $$tool >/dev/null || { \
			echo "make: $$tool is missing: see \"What it needs\" in README.md" >&2; exit 1; }; \
	done

native: tools
	@scripts/native-libs.sh

venv: tools
	@scripts/test-venv.sh
