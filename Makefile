# Everything a person or a machine does with this tree. `make` alone lists it.
# Needs Python 3.11 or newer, make and a package index; uses uv when it is there. No root, no Docker, no compiler:
# the one that the benchmarks' server needs comes from the package index.

# The first interpreter on the PATH that is new enough; `make PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
ARGS ?=
# So many processes share the tests, a file each. Half of a test is waiting: three keep two cores busy. 0 is none beside.
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
STUB := benchmarks/.build/stub
AUDIT := .venv-audit
DOCS := .venv-docs
PACKAGE := .venv-package

# Locked versions with their hashes, wheels only; then the project itself, from what is installed by then.
LOCKED := --no-deps --require-hashes --only-binary :all: --no-compile
EDITABLE := --no-deps --no-build-isolation --no-index --editable .
# Compiled modules are kept for the next process, also where the environment says that none be written.
PYTEST := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.pytest_cache/compiled $(BIN)/python -m pytest
SPREAD := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
SOAK := --timeout 7200 -o faulthandler_timeout=0
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet

.DELETE_ON_ERROR:
.PHONY: help demo test check format format-check lint types contracts unit lock clean
.PHONY: docs package image release screenshots
.PHONY: bench bench-idle bench-detect bench-resume bench-burst bench-fleet bench-page faults soak audit

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## see it work: an S3 server, a workload and replicator (ARGS="--seconds 20")
	$(BIN)/replicator demo $(ARGS)

test: $(VENV)/.dev ## every test (ARGS="-k name")
	$(PYTEST) tests -q $(SPREAD) --durations=10 $(ARGS)

faults: $(VENV)/.dev build/sbom.json ## every fault that the tests bring about, and docs/FAULTS.md from what came of it
	@code=0; $(PYTEST) tests -q $(SPREAD) -m fault --fault-report build/faults.json || code=$$?; \
	$(BIN)/python -m tests.faults.table build/faults.json docs/FAULTS.md && exit $$code

soak: $(VENV)/.dev ## the long profiles: every seed, every place to be killed at; takes hours
	REPLICATOR_TEST_LONG=1 $(PYTEST) tests -q -m fault $(SOAK)
	REPLICATOR_TEST_LONG=1 $(PYTEST) tests/model -q -m "not fault" $(SOAK)
	$(BIN)/python -m tests.soak $(ARGS)

audit: $(AUDIT)/.made build/sbom.json ## what ships as a CycloneDX list, and whether a flaw is known in it
	@$(AUDIT)/bin/python .ci/audit.py $(ARGS)

docs: $(VENV)/.demo $(DOCS)/.made ## the documentation, as a site that needs no network: build/site/index.html
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m tests.answers docs/json.md
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --config-file config/mkdocs.yml

package: $(VENV)/.demo ## wheel and sdist in dist/, compared with the tree, then installed beside the runtime lock
	@$(BIN)/python .ci/package.py
	@rm -rf $(PACKAGE)
	@$(MAKE) --no-print-directory $(PACKAGE)/.made
	@PYTHONPATH= $(PACKAGE)/bin/python -P .ci/installed.py

image: ## the container image, with podman, docker or buildah (PYTHON_IMAGE=... for another base)
	@.ci/image $(ARGS)

release: $(VENV)/.demo ## put VERSION everywhere and cut the changelog's section (VERSION=0.2.0)
	@$(BIN)/python .ci/release.py "$(VERSION)"

check: format-check lint types contracts unit ## what a commit must pass, in a minute or two

format: $(VENV)/.dev ## put the sources in their one form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

format-check: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(PYTEST) tests/unit -q $(SPREAD) -m "not slow"

bench: $(VENV)/.demo $(BENCH)/.made $(STUB) ## beside s5cmd, rclone and aws, on one server (ARGS="--quick")
	$(BENCH)/bin/python benchmarks/transfers.py $(ARGS)

bench-idle: $(VENV)/.demo ## latency from close() to visible, and the cost of an idle minute
	$(BIN)/python benchmarks/idle.py $(ARGS)

bench-detect: $(VENV)/.demo $(BENCH)/.made $(STUB) ## what noticing changes costs, beside pollers (ARGS="--quick")
	$(BENCH)/bin/python benchmarks/detect.py $(ARGS)

bench-resume: $(VENV)/.demo $(BENCH)/.made $(STUB) ## what a killed upload sends again (ARGS="--gib 1")
	$(BENCH)/bin/python benchmarks/resume.py $(ARGS)

bench-burst: $(VENV)/.demo $(BENCH)/.made $(STUB) ## how many requests a throttled minute costs
	$(BENCH)/bin/python benchmarks/burst.py $(ARGS)

bench-fleet: $(VENV)/.dev ## ten thousand devices at the Edge API, two thousand in the operator's hands
	PYTHONPATH=. $(BIN)/python benchmarks/fleet.py $(ARGS)

bench-page: $(VENV)/.dev ## how soon the page is seen, by Chromium
	PYTHONPATH=. $(BIN)/python benchmarks/page.py $(ARGS)

lock: ## resolve the locked versions anew (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv on the PATH" >&2; exit 1; }
	$(LOCK) --upgrade --group dev --output-file config/locks/dev.txt
	$(LOCK) --group demo --constraints config/locks/dev.txt --output-file config/locks/demo.txt
	$(LOCK) --extra fast --extra operator --constraints config/locks/dev.txt --output-file config/locks/runtime.txt
	$(subst pyproject.toml,benchmarks/requirements.in,$(LOCK)) --upgrade --output-file config/locks/bench.txt
	$(subst pyproject.toml,config/locks/audit.in,$(LOCK)) --upgrade --output-file config/locks/audit.txt
	$(subst pyproject.toml,config/locks/docs.in,$(LOCK)) --upgrade --output-file config/locks/docs.txt

screenshots: $(VENV)/.dev ## the pictures of the page in docs/images, taken anew (needs chromium)
	@mkdir -p docs/images
	PYTHONPATH=. $(BIN)/python -m tests.page.pictures docs/images

clean: ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	rm -rf $(BENCH) $(AUDIT) $(DOCS) $(PACKAGE) benchmarks/.build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an environment is made once, and again when its lock changes. `.dev` grows out of `.demo`, so that both
# may be asked for at the same time, and the two locks agree on every version.
$(patsubst %,%/bin/python,$(VENV) $(BENCH) $(AUDIT) $(DOCS) $(PACKAGE)): %/bin/python:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		python="$(PYTHON)"; python="$${python:-python3}"; \
		echo "Python 3.11 or newer is needed; $$python says: $$("$$python" --version 2>&1)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@rm -rf $*
	@if command -v uv >/dev/null; then uv venv --quiet --python "$(PYTHON)" $*; \
	else "$(PYTHON)" -m venv $* || { rm -rf $*; \
		echo "This Python has no venv module: install it (python3-venv on Debian and Ubuntu), or uv." >&2; exit 1; }; fi

# $(call install,arguments), into the environment of the stamp that is made: with uv when it is there, else with pip,
# which an environment made by uv lacks at first.
define install
	@echo "installing $(lastword $(1))"
	@if command -v uv >/dev/null; then uv pip install --quiet --python $(@D)/bin/python $(1); \
	else $(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(@D)/bin/python -m ensurepip >/dev/null; \
		$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(1); fi
endef

$(VENV)/.demo: config/locks/demo.txt pyproject.toml $(BIN)/python
	$(call install,$(LOCKED) --requirement config/locks/demo.txt)
	$(call install,$(EDITABLE))
	@touch $@

$(VENV)/.dev: config/locks/dev.txt $(VENV)/.demo
	$(call install,$(LOCKED) --requirement config/locks/dev.txt)
	@touch $@

$(BENCH)/.made: config/locks/bench.txt $(BENCH)/bin/python
	$(call install,$(LOCKED) --requirement config/locks/bench.txt)
	@touch $@

$(AUDIT)/.made: config/locks/audit.txt $(AUDIT)/bin/python
	$(call install,$(LOCKED) --requirement config/locks/audit.txt)
	@touch $@

$(PACKAGE)/.made: config/locks/runtime.txt $(PACKAGE)/bin/python
	$(call install,$(LOCKED) --requirement config/locks/runtime.txt)
	$(call install,--no-deps --no-index $(wildcard dist/*.whl))
	@touch $@

$(DOCS)/.made: config/locks/docs.txt $(DOCS)/bin/python
	$(call install,$(LOCKED) --requirement config/locks/docs.txt)
	@touch $@

build/sbom.json: config/locks/runtime.txt pyproject.toml $(AUDIT)/.made
	@mkdir -p build
	@$(AUDIT)/bin/python -W ignore $(AUDIT)/bin/cyclonedx-py requirements $< --pyproject pyproject.toml \
		--output-reproducible --output-file $@

# No dependencies and no network: the module has none, and the toolchain in the environment is the one to use.
$(STUB): $(wildcard benchmarks/stub/*.go) benchmarks/stub/go.mod $(BENCH)/.made
	@echo "building $@"
	@cd benchmarks/stub && CGO_ENABLED=0 GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod \
		$(CURDIR)/$(BENCH)/bin/go build -o $(CURDIR)/$@ .
