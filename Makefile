# The only entry point a person needs: `make` alone lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which stack; the local one gets a cluster on this machine first.
STACK ?= local
# Name of the local cluster, for a second one in another network namespace.
CLUSTER ?= local
PYTHON ?= python3

STATE := .state
BIN := $(CURDIR)/$(STATE)/bin
export PATH := $(CURDIR)/.venv/bin:$(BIN):$(PATH)
export PULUMI_HOME := $(CURDIR)/$(STATE)/pulumi
export PULUMI_SKIP_UPDATE_CHECK := true
# Every plugin is built by `make tools`: nothing is downloaded behind anybody's back.
export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION := true
# The local stack keeps its state and its key in the checkout; any other stack's are the user's choice.
ifeq ($(STACK),local)
export PULUMI_BACKEND_URL := file://$(CURDIR)/$(STATE)/backend
export PULUMI_CONFIG_PASSPHRASE := local
export BUILDX_CONFIG := $(CURDIR)/$(STATE)/buildx
# Not named in the stack: the Kubernetes provider would leave a copy of it in /tmp with each run.
export KUBECONFIG := $(CURDIR)/$(STATE)/kubeconfig
endif
LOCAL := .venv/bin/python -m local
# By content, not by time: a fresh checkout has new times and the same content.
VENV := .venv/installed-$(shell cat requirements*.txt | sha256sum | cut -c 1-12)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: up
up: $(if $(filter local,$(STACK)),cluster,tools) stack ## bring the stack up and ask a model for a prediction (STACK=local)
	@pulumi up --yes --skip-preview --stack $(STACK)
	@python -m ci.show --stack $(STACK) $(if $(filter local,$(STACK)),--predict)

.PHONY: preview
preview: $(if $(filter local,$(STACK)),cluster,tools) stack ## show what `make up` would change
	@pulumi preview --diff --stack $(STACK)

.PHONY: down
down: tools ## destroy the stack and stop the local cluster; caches stay
ifeq ($(STACK),local)
# The cluster has to run for it: what the state remembers must not outlive what it is about.
	@if test -e $(STATE)/backend/.pulumi/stacks/model-serving/local.json; then \
	  $(LOCAL) start --name $(CLUSTER) && pulumi destroy --yes --skip-preview --stack local; fi
	@$(LOCAL) stop --name $(CLUSTER) --delete
else
	@pulumi destroy --stack $(STACK)
endif

.PHONY: status
status: tools ## show the processes of the local cluster
	@$(LOCAL) status --name $(CLUSTER)

.PHONY: cluster
cluster: tools
	@$(LOCAL) start --name $(CLUSTER)
	@$(LOCAL) images --name $(CLUSTER)

.PHONY: stack
stack:
	@mkdir -p $(STATE)/backend
	@pulumi stack select --create $(STACK)

.PHONY: env
env: ## print the environment for commands of your own: eval "$(make env)"
	@$(MAKE) tools >&2
	@for name in PATH PULUMI_HOME PULUMI_SKIP_UPDATE_CHECK PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION \
	    PULUMI_BACKEND_URL PULUMI_CONFIG_PASSPHRASE BUILDX_CONFIG KUBECONFIG; do \
	  test -z "$${!name+set}" || printf 'export %s=%q\n' "$$name" "$${!name}"; \
	done

.PHONY: tools
tools: $(STATE)/packages $(VENV) ## install or build whatever is missing; a second run takes no time
	@.venv/bin/python toolchain/build.py --bin $(STATE)/bin --pulumi-home $(PULUMI_HOME)

$(STATE)/packages: toolchain/packages.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than Python 3.11, which this project needs: make PYTHON=<a newer one>" >&2; exit 1; }
	@$(PYTHON) toolchain/packages.py
	@mkdir -p $(STATE) && touch $@

$(VENV):
	@echo "installing the Python packages into .venv"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.txt
	@.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes --compile-bytecode \
	    requirements-bootstrap.txt requirements.txt requirements-dev.txt
	@rm -f .venv/installed* && touch $@

.PHONY: lock
lock: ## pin the Python packages anew after a change of requirements*.in
	@for name in requirements requirements-dev requirements-bootstrap; do \
	  .venv/bin/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 $$name.in -o $$name.txt; \
	done

.PHONY: schema
schema: tools ## write the JSON Schema of the stack files, which editors use
	@python -m ci.schema > stacks/schema.json

.PHONY: init-gcp
init-gcp: tools ## make what a cloud stack needs before its first up: PROJECT=… REGION=…
	@python -m ci.init_gcp --project "$(PROJECT)" --region "$(REGION)"

.PHONY: lint
lint: tools ## check format, style and types
	@ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@ruff check --quiet .
	@mypy .
	@check-jsonschema --quiet --schemafile stacks/schema.json stacks/Pulumi.*.yaml

.PHONY: format
format: tools ## format the code
	@ruff format --quiet . && ruff check --quiet --fix .

.PHONY: test test-unit test-engine test-cluster
test: test-unit test-engine test-cluster ## run all tests: unit (seconds), engine, then a cluster of their own

test-unit: tools
	@pytest tests/unit

test-engine: tools
	@pytest tests/engine

# In a network of its own, where the ports are free: `make up` can go on beside it. Nothing can be loaded in there.
test-cluster: tools
	@$(LOCAL) fetch
	@tests/cluster/in-own-network pytest tests/cluster

.PHONY: bench
bench: cluster stack ## measure speed as ratios to a baseline
	@python -m bench
