# What there is to do here. `make help` prints the comments that begin with two hashes.
# Everything that is made goes to .build/, dist/ and node_modules/; `make clean` takes it away.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PORT ?= 8321
MINUTES ?= 15
export PYTHON

BUILD := .build
VENV := $(BUILD)/venv
RUN := $(VENV)/bin/python
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/holdfast/version.py)
WHEEL := dist/holdfast-$(VERSION)-py3-none-any.whl
EMSCRIPTEN_WHEEL := dist/emscripten/holdfast-$(VERSION)-py3-none-any.whl
SOURCES := $(shell find src -type f -not -path '*/__pycache__/*') \
	pyproject.toml hatch_build.py README.md LICENSE
# Browsers come from the system.
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1

.PHONY: help setup wheel wheel-emscripten lint test test-unit test-pythons test-browser test-e2e \
	test-firefox test-emscripten conformance soak demo screenshot bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | \
		while IFS="$$(printf '\t')" read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done
	@echo
	@echo 'ARGS="…" goes on to the test runner: make test-unit ARGS="-k transactions -x"'
	@echo 'PYTHON=… picks the Python (3.11 or newer), PORT=… the port of the demo ($(PORT)), MINUTES=… how long to soak ($(MINUTES))'

setup: $(BUILD)/needs-compiler $(BUILD)/needs-browser $(BUILD)/needs-webkit $(BUILD)/needs-firefox $(VENV)/ready node_modules/.package-lock.json ## install what is missing: apt, pip and npm packages

wheel: $(WHEEL) ## build the wheel into dist/ (the VFS compiled by zig)

wheel-emscripten: $(EMSCRIPTEN_WHEEL) ## build the same wheel with pyodide build and emcc, into dist/emscripten/

lint: $(VENV)/ready node_modules/.package-lock.json ## ruff, mypy, the layers of imports, and tsc on the types of the JavaScript
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo --no-cache
	npx --no-install tsc -p tests/types
	node tests/types/documented.mjs src/holdfast/javascript/holdfast.d.mts

test: $(BUILD)/needs-compiler $(BUILD)/needs-browser $(BUILD)/needs-webkit $(BUILD)/needs-firefox $(BUILD)/pyodide/pyodide-lock.json ## all tests: unit, browser, e2e
	$(RUN) scripts/run_tests.py unit browser e2e

test-unit: $(BUILD)/needs-compiler $(VENV)/ready ## tests on CPython
	$(RUN) scripts/run_tests.py unit -- $(ARGS)

test-pythons: $(BUILD)/needs-compiler $(VENV)/ready ## the unit tests under each other Python (3.11 to 3.14) there is; SHORT=1: what differs
	$(RUN) scripts/test_pythons.py $(if $(SHORT),--short) -- $(ARGS)

test-browser: $(BUILD)/needs-browser $(BUILD)/needs-webkit $(BUILD)/pyodide/pyodide-lock.json ## tests in a worker of Chromium, and in pages of WebKitGTK
	$(RUN) scripts/run_tests.py browser -- $(ARGS)

test-e2e: $(BUILD)/needs-browser $(BUILD)/needs-firefox $(BUILD)/pyodide/pyodide-lock.json ## several tabs, killed and stopped ones too, in both browsers
	$(RUN) scripts/run_tests.py e2e -- $(ARGS)

test-firefox: $(BUILD)/needs-firefox $(BUILD)/pyodide/pyodide-lock.json ## the same in Firefox alone
	$(RUN) scripts/run_tests.py firefox -- $(ARGS)

test-emscripten: $(BUILD)/needs-browser $(BUILD)/pyodide-emscripten/pyodide-lock.json ## the browser tests with the wheel built by emcc
	HOLDFAST_PYODIDE=$(BUILD)/pyodide-emscripten $(RUN) scripts/run_tests.py browser -- $(ARGS)

conformance: $(BUILD)/needs-browser $(BUILD)/needs-firefox $(BUILD)/needs-webkit $(BUILD)/pyodide/pyodide-lock.json ## record anew what these browsers do with the scenarios of tests/conformance
	CONFORMANCE=record PYTHON=$(RUN) npx --no-install playwright test conformance.spec
	CONFORMANCE=record $(RUN) -m pytest tests/browser/test_webkit.py -k recorded

soak: $(BUILD)/needs-browser $(BUILD)/needs-firefox $(BUILD)/pyodide/pyodide-lock.json ## tabs that die for MINUTES=…, in both browsers and handle modes, and the history checked
	HISTORY_SECONDS=$$(($(MINUTES) * 20)) FAIRNESS_TURNS=1000 PYTHON=$(RUN) npx --no-install playwright test \
		history.spec fairness.spec

demo: $(BUILD)/pyodide/pyodide-lock.json ## serve the demo and print its address
	$(RUN) scripts/serve.py --port $(PORT)

screenshot: $(BUILD)/needs-browser $(BUILD)/pyodide/pyodide-lock.json ## take docs/demo.png anew: two tabs of the demo side by side
	PYTHON=$(RUN) node scripts/screenshot.mjs

bench: $(BUILD)/needs-browser $(BUILD)/pyodide/pyodide-lock.json benchmarks/node_modules/.package-lock.json ## measure beside the rivals, in one browser run
	node benchmarks/run.mjs $(ARGS)

clean: ## remove everything that was made
	rm -rf $(BUILD) dist node_modules benchmarks/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp means: looked for once, and found or installed. `make clean` makes it look again.
$(BUILD)/needs-%: scripts/need.sh
	sh scripts/need.sh $*
	@mkdir -p $(BUILD) && touch $@

$(VENV)/ready: pyproject.toml | $(BUILD)/needs-build
	[ -x $(RUN) ] || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check 'pip==26.2'
	$(RUN) -m pip install --quiet --group dev
	$(RUN) -m pip install --quiet --no-build-isolation --editable .
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json | $(BUILD)/needs-node
	npm ci --no-audit --no-fund
	@touch $@

benchmarks/node_modules/.package-lock.json: benchmarks/package.json benchmarks/package-lock.json | $(BUILD)/needs-node
	cd benchmarks && npm ci --no-audit --no-fund
	@touch $@

$(WHEEL): $(SOURCES) $(VENV)/ready
	rm -f dist/*.whl
	$(RUN) -m hatchling build --target wheel

$(EMSCRIPTEN_WHEEL): $(SOURCES) scripts/wheel_emscripten.py scripts/emscripten_root.py $(VENV)/ready node_modules/.package-lock.json
	$(RUN) scripts/wheel_emscripten.py --output $(@D)

$(BUILD)/pyodide/pyodide-lock.json: $(WHEEL) scripts/pyodide_dist.py node_modules/.package-lock.json
	$(RUN) scripts/pyodide_dist.py --wheel $(WHEEL) --output $(@D)

$(BUILD)/pyodide-emscripten/pyodide-lock.json: $(EMSCRIPTEN_WHEEL) scripts/pyodide_dist.py node_modules/.package-lock.json
	$(RUN) scripts/pyodide_dist.py --wheel $(EMSCRIPTEN_WHEEL) --output $(@D)
