# Every target does its own set-up. Every cargo call has --workspace, so that cargo chooses the same features and builds once.
# Variables: CARGO (cargo), ARGS (for the demo), TESTFLAGS (for the test binaries).
CARGO ?= cargo
ARGS ?=
TESTFLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo check test browser python wheel pytorch fiftyone soak bench structure lint clean tools native venv pyvenv

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

demo: native ## Label, train, denoise and score a built-in sample
	$(CARGO) build --workspace --bin vaplan --bin vaplan-torch
	@$${CARGO_TARGET_DIR:-target}/debug/vaplan demo $(ARGS)

check: native structure ## Daily work, a few minutes: structure, formatting, clippy, unit tests of the libraries
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace --lib --test cost --test similarity -- $(TESTFLAGS)

test: native venv ## Run every test
	$(CARGO) test --workspace -- $(TESTFLAGS)

browser: tools ## Test the review page in Chromium, which is installed if it is missing (ARGS=--screenshots: write docs/images)
	$(CARGO) build --workspace --bin vaplan
	@scripts/browser.sh $(ARGS)

python: pyvenv ## Build the Python package into .venv-py, check its types and run its tests (PROFILE=release: as users get it)
	cd python && ../.venv-py/bin/python -m mypy
	.venv-py/bin/python -m pytest -q python/tests --ignore python/tests/torch
	.venv-py/bin/python -m pytest -q --doctest-modules --pyargs vaplan --ignore-glob '*/vaplan/torch/*'
	@scripts/python-old.sh

wheel: native ## Make the wheel that users install, with vaplan-torch and without libtorch (a release build)
	@scripts/wheel.sh

pytorch: native pyvenv ## Install PyTorch (590 MB) beside the Python package, and run the tests that need it
	$(CARGO) build --workspace --bin vaplan-torch
	@scripts/torch-venv.sh
	cd python && ../.venv-py/bin/python -m mypy
	.venv-py/bin/python -m pytest -q python/tests/torch
	.venv-py/bin/python -m pytest -q --doctest-modules --pyargs vaplan.torch

fiftyone: tools ## Open an export with FiftyOne itself, which is installed into its own environment (1.1 GB)
	$(CARGO) build --workspace --bin vaplan
	@scripts/fiftyone.sh

soak: tools ## Check that incremental equals batch on 10,000 random scripts of changes (VAPLAN_SOAK) and on 500 with stores and files (VAPLAN_SOAK_STORES)
	VAPLAN_SOAK=$${VAPLAN_SOAK:-10000} $(CARGO) test --workspace --test law -- --nocapture
	VAPLAN_SOAK=$${VAPLAN_SOAK_STORES:-500} $(CARGO) test --workspace --test main -- --nocapture relabel::law

bench: native venv ## Time vaplan against the tools that users would pick instead; results are in bench/README.md
	bench/run

structure: tools ## Seconds, no build: module dependencies, type names, links of the pages, and the tests of these checks
	@status=0; \
	for check in "-m unittest discover --quiet --start-directory scripts/tests" \
		"scripts/modules.py --check docs/architecture.md --strict" scripts/type_names.py scripts/links.py; do \
		python3 -B $$check || status=1; \
	done; \
	exit $$status

lint: native structure ## Everything that CI checks beside the tests: structure, formatting, clippy, docs
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

clean: ## Remove target/ and the Python environments; third_party/ (540 MB to fetch) stays
	$(CARGO) clean
	rm -rf .venv .venv-py .venv-py-old .venv-fiftyone

tools:
	@for tool in $(CARGO) python3 c++; do \
		command -v $$tool >/dev/null || { \
			echo "make: $$tool is missing: see \"What it needs\" in README.md" >&2; exit 1; }; \
	done

native: tools
	@scripts/native-libs.sh

venv: tools
	@scripts/test-venv.sh

pyvenv: tools
	@scripts/python-venv.sh
