# The only entry point a person needs: `make` alone lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which stack; the local one gets a cluster on this machine first.
STACK ?= local
# Name of the local cluster, for a second one in another network namespace.
CLUSTER ?= local
PYTHON ?= python3

# `sudo make` acts for the user of the checkout: caches and files stay theirs. Only what needs root gets it, below.
ifneq ($(filter-out 0,$(SUDO_UID)),)
ifeq ($(shell id -u):$(shell stat -c %u .),0:$(SUDO_UID))
export HOME := $(shell getent passwd $(SUDO_UID) | cut -d: -f6)
SHELL := setpriv
.SHELLFLAGS := --reuid=$(SUDO_UID) --regid=$(SUDO_GID) --init-groups -- /bin/bash -c
endif
endif

STATE := .state
BIN := $(CURDIR)/$(STATE)/bin
export PATH := $(CURDIR)/.venv/bin:$(BIN):$(PATH)
export PULUMI_HOME := $(CURDIR)/$(STATE)/pulumi
export PULUMI_SKIP_UPDATE_CHECK := true
# Pulumi and its plugins are processes of seconds: with a collector that is less eager a preview takes a twentieth less.
export GOGC := 400
# The local stack keeps its state and its key in the checkout; any other stack's are the user's choice. Without metadata:
# Pulumi writes that into a file beside each, and an update that is killed in that moment leaves a state nobody can read.
ifeq ($(STACK),local)
# `make tools` builds every plugin of this stack, so Pulumi has none to download.
export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION := true
export PULUMI_BACKEND_URL := file://$(CURDIR)/$(STATE)/backend?metadata=skip
export PULUMI_CONFIG_PASSPHRASE := local
export BUILDX_CONFIG := $(CURDIR)/$(STATE)/buildx
# Not named in the stack: the Kubernetes provider would leave a copy of it in /tmp with each run.
export KUBECONFIG := $(CURDIR)/$(STATE)/kubeconfig
endif
# Root's part keeps the user's settings of proxies and package indexes, and the user's cache.
export SUDO_PROMPT := Root is needed to install packages, run pods and set up their network. Password of %p:
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env env HOME=$(HOME) XDG_CACHE_HOME=$(CACHE))
LOCAL := $(ROOT) .venv/bin/python -m local.cluster
# TOOLS=build compiles every tool, TOOLS=download none.
BUILD := .venv/bin/python -m local.tools.build --bin $(STATE)/bin --pulumi-home $(PULUMI_HOME) --way $(or $(TOOLS),any)
TOOLS_OF_STACK := $(BUILD) --purpose program $(if $(filter local,$(STACK)),cluster)
# By content, not by time: a fresh checkout has new times and the same content.
VENV := .venv/installed-$(shell cat requirements*.txt | sha256sum | cut -c 1-12)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: up
up: $(if $(filter local,$(STACK)),cluster,tools) stack ## bring the stack up and ask a model for a prediction (STACK=local)
ifeq ($(STACK),local)
	@python -m model_serving recover --stack $(STACK)
endif
	@pulumi up --yes --skip-preview --suppress-outputs --stack $(STACK)
	@python -m model_serving show --stack $(STACK) $(if $(filter local,$(STACK)),--predict)

.PHONY: preview
preview: $(if $(filter local,$(STACK)),cluster,tools) stack ## show what `make up` would change, and write a merge request's note of it
	@rm -rf $(STATE)/ci/preview
	@python -m model_serving preview --stack $(STACK) --out $(STATE)/ci/preview; code=$$?; \
	  test ! -d $(STATE)/ci/preview || python -m model_serving note $(STATE)/ci/preview --out $(STATE)/ci/note.md; exit $$code

.PHONY: down
down: tools ## destroy the stack and stop the local cluster; caches stay
ifeq ($(STACK),local)
# The cluster has to run for it: what the state remembers must not outlive what it is about.
	@if test -e $(STATE)/backend/.pulumi/stacks/model-serving/local.json; then \
	  $(LOCAL) start --name $(CLUSTER) && python -m model_serving recover --stack local && \
	  pulumi destroy --yes --skip-preview --stack local; fi
	@$(LOCAL) stop --name $(CLUSTER) --delete
else
	@pulumi destroy --stack $(STACK)
endif

.PHONY: rollback
rollback: tools ## write into the stack file what served before: MODEL=… (STACK=local)
	@python -m model_serving rollback --stack $(STACK) --model "$(MODEL)"

.PHONY: prune
prune: $(if $(filter local,$(STACK)),cluster,tools) ## list images that nothing needs; APPLY=true removes them (KEEP=5)
	@python -m model_serving prune --stack $(STACK) $(if $(KEEP),--keep $(KEEP)) \
	  $(if $(filter true,$(UNRELEASED)),--unreleased) $(if $(filter true,$(APPLY)),--apply)
ifeq ($(STACK)-$(APPLY),local-true)
	@$(LOCAL) collect --name $(CLUSTER)
endif

.PHONY: status
status: tools ## show the processes of the local cluster
	@$(LOCAL) status --name $(CLUSTER)

.PHONY: cluster
cluster: machine first-fetch
	@$(LOCAL) start --name $(CLUSTER)
	@$(LOCAL) images --name $(CLUSTER)

# The first time, the base image and the wheels come while the tools do, and sudo is kept from asking a second time.
.PHONY: first-fetch
ifneq ($(wildcard $(STATE)/wheels)$(MODEL_SERVING_TOOLS),)
first-fetch: tools
else
first-fetch: $(VENV)
	@set -e; trap 'kill $$(jobs -p) 2> /dev/null || true' EXIT; \
	  $(if $(ROOT),(while sudo --validate; do sleep 60; done) &) \
	  $(LOCAL) fetch --name $(CLUSTER) & fetching=$$!; $(TOOLS_OF_STACK); wait $$fetching
endif

# A cluster that runs was looked at before, and each start looks at what may have changed since.
.PHONY: machine
machine:
ifndef MODEL_SERVING_TOOLS
	@test -e /run/model-serving/$(CLUSTER)/state || $(PYTHON) -m local.machine --name $(CLUSTER)
endif

.PHONY: doctor
doctor: ## show whether this machine can run the local cluster, and what it lacks
	@$(PYTHON) -m local.machine --name $(CLUSTER) --table

.PHONY: stack
stack:
	@test -e stacks/Pulumi.$(STACK).yaml || { \
	  echo "stacks/Pulumi.$(STACK).yaml does not exist, so there is no stack $(STACK)." >&2; \
	  echo "  Nothing was changed." >&2; \
	  echo "  Write STACK=... with one of: $(patsubst stacks/Pulumi.%.yaml,%,$(wildcard stacks/Pulumi.*.yaml))." >&2; exit 1; }
	@mkdir -p $(STATE)/backend
	@pulumi stack select --create $(STACK)

.PHONY: env
env: ## print the environment for commands of your own: eval "$(make env)"
	@$(MAKE) tools >&2
	@for name in PATH PULUMI_HOME PULUMI_SKIP_UPDATE_CHECK PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION GOGC \
	    PULUMI_BACKEND_URL PULUMI_CONFIG_PASSPHRASE BUILDX_CONFIG KUBECONFIG; do \
	  test -z "$${!name+set}" || printf 'export %s=%q\n' "$$name" "$${!name}"; \
	done

.PHONY: tools
ifdef MODEL_SERVING_TOOLS
# In the tool image of the pipelines, local/tools/ci.Dockerfile, everything is there already.
tools:
	@mkdir -p $(STATE)
	@ln -sfn $(MODEL_SERVING_TOOLS)/venv .venv
	@for name in bin pulumi; do ln -sfn $(MODEL_SERVING_TOOLS)/$$name $(STATE)/$$name; done
else
tools: $(VENV) ## download or compile whatever is missing (TOOLS=build, TOOLS=download)
	@$(TOOLS_OF_STACK)
ifneq ($(STACK),local)
	@python -m model_serving plugins --stack $(STACK)
endif
endif

$(VENV):
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) has no ensurepip or is older than Python 3.11: make PYTHON=<a newer one>" >&2; exit 1; }
	@echo "installing the Python packages into .venv"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.txt
	@.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes --compile-bytecode \
	    requirements-bootstrap.txt requirements.txt requirements-dev.txt
	@rm -f .venv/installed* && touch $@

# What only checks of this project need is no part of the way to a first prediction.
.PHONY: all-tools
all-tools: tools
	@$(if $(MODEL_SERVING_TOOLS),,$(BUILD) --purpose lint)

.PHONY: lock
lock: ## pin the Python packages anew after a change of requirements*.in
	@for name in requirements requirements-dev requirements-bootstrap docs/requirements; do \
	  .venv/bin/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 $$name.in -o $$name.txt; \
	done
	@$(COMPILE) --override server/portal/requirements-overrides.txt server/portal/requirements.in \
	  --output-file server/portal/requirements.lock

# For the Python and the system of the runtime image, as in the template's Makefile. Each in a folder of its own, where a
# lock reads as `make lock` writes it in a model's repository. Releases in models/ keep their locks: a release never changes.
LOCKING := $(STATE)/locks
TEMPLATE := templates/model-repository
COMPILE := $(CURDIR)/.venv/bin/uv pip compile --quiet --generate-hashes --no-header --only-binary :all: \
  --python-version 3.11 --python-platform x86_64-unknown-linux-gnu
.PHONY: lock-models
lock-models: ## pin the packages of templates/ anew after a change of their requirements
	@set -e; for runtime in $(notdir $(wildcard templates/runtimes/*)); do \
	  folder=$(LOCKING)/$$runtime; mkdir -p $$folder; \
	  cp $(TEMPLATE)/template/requirements-overrides.txt templates/runtimes/$$runtime/requirements.* $$folder; \
	  (cd $$folder; $(COMPILE) --override requirements-overrides.txt requirements.in --output-file requirements.lock); \
	  cp $$folder/requirements.lock templates/runtimes/$$runtime; \
	done
	@set -e; for each in scikit-learn/notebook lightgbm/dvc; do \
	  folder=$(LOCKING)/$${each%/*}; locks=$(TEMPLATE)/locks; kind=$$locks/$${each#*/}; \
	  cp $$folder/requirements.lock $$locks/$${each%/*}.lock; \
	  cp $$kind.in $$folder/requirements-tools.in; cp $$kind.txt $$folder/requirements-tools.txt; \
	  (cd $$folder; $(COMPILE) --constraint requirements.lock requirements-tools.in --output-file requirements-tools.txt); \
	  cp $$folder/requirements-tools.txt $$kind.txt; \
	done

.PHONY: audit
audit: tools ## list locked packages with known vulnerabilities, which depends on the day
	@python -m model_serving audit

.PHONY: outdated
outdated: tools ## list what is pinned and has a newer version, which depends on the day
	@python -m local.tools.outdated

.PHONY: schema
schema: tools ## write the JSON Schema of the stack files, which editors use
	@python -m model_serving schema > stacks/schema.json

# As they lie in the repository: the links between them lead to the same places on GitLab, on GitHub and in the site.
DOCUMENTS := README.md CONTRIBUTING.md CHANGELOG.md LICENSE docs stacks templates
.PHONY: docs
docs: $(if $(MODEL_SERVING_TOOLS),tools,$(VENV)) ## build README.md and docs/ as a site, with every link checked: .state/site
	@mkdir -p $(STATE)/documents
	@ln -sfn $(addprefix $(CURDIR)/,$(DOCUMENTS)) $(STATE)/documents
	@environment=$$(python -m local.tools.environments docs/requirements.txt) && \
	  NO_MKDOCS_2_WARNING=1 $$environment/bin/mkdocs build --strict

.PHONY: screenshots
screenshots: tools ## take the picture of the page in README
	@$(PYTHON) local/tools/packages.py chromium
	@python -m tests.release.screenshots

.PHONY: pipelines
pipelines: tools ## write the pipelines' jobs for each stack that has a ci section
	@python -m model_serving pipelines

.PHONY: init-gcp
init-gcp: tools ## make what a cloud stack needs before its first up: PROJECT=… REGION=…
	@python -m model_serving init-gcp --project "$(PROJECT)" --region "$(REGION)"

.PHONY: adopt-pool
adopt-pool: tools ## take up the identity pool that an earlier stack left in the Google project (STACK=dev)
	@python -m model_serving adopt-pool --stack $(STACK)

.PHONY: lint
lint: all-tools ## check format, style and types
	@ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@ruff check --quiet .
	@mypy .
	@lint-imports > /dev/null || lint-imports
	@check-jsonschema --quiet --schemafile stacks/schema.json stacks/Pulumi.*.yaml
# Of one site, if the files of the other one are deleted, as docs/ci.md says.
	@test ! -e .gitlab-ci.yml || check-jsonschema --quiet --builtin-schema vendor.gitlab-ci \
	  --data-transform gitlab-ci .gitlab-ci.yml .gitlab/*.yml
# actionlint without its two helpers: what they find would depend on the machine.
	@test ! -e .github/workflows/mlops.yml || { \
	  check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml && \
	  actionlint -shellcheck= -pyflakes= && \
	  zizmor --quiet --offline .github/workflows; }
	@python -m model_serving pipelines --check

.PHONY: format
format: tools ## format the code
	@ruff format --quiet . && ruff check --quiet --fix .

# Each part can be run alone, and with ALL=true as thoroughly as `make test-all` does: tests/conftest.py says how.
# Processes, one more than there are cores: now and then a test waits.
WORKERS = $(shell expr $$(nproc) + 1)
PYTEST := pytest $(if $(filter true,$(ALL)),--thorough)
.PHONY: test test-all test-unit test-engine test-release test-cluster test-docs
test: test-unit test-engine test-release test-cluster ## run the tests, in 20 minutes: each kind of behaviour once

test-all: ## run all tests, with every repetition and variant
	@$(MAKE) test ALL=true

test-unit: all-tools ## … of each module, in a minute: settings, catalog, components under mocks, notes
	@$(PYTEST) -n $(WORKERS) tests/unit

test-engine: machine tools ## … of the program and of deployments in the real engine, with stand-ins for the clouds
	@$(PYTEST) -n $(WORKERS) tests/engine

# Models' repositories, whose packages are installed into environments of their own the first time. A file's tests share
# what they have trained, so each stays on one worker.
test-release: all-tools ## … of templates/ and of releases from a model's repository: real git, training and MLServer
	@python -m local.tools.node --bin $(STATE)/bin
	@$(PYTHON) local/tools/packages.py chromium
	@$(PYTEST) -n $(WORKERS) --dist loadfile tests/release

# In networks of their own, where the ports are free: `make up` can go on beside it. Nothing can be loaded in there. Several
# clusters at once, because each waits now and then; a file's tests stay on one of them.
CLUSTERS ?= 3
test-cluster: for-clusters ## … of serving on real clusters: releases under load, faults, traffic, the pipelines, the README
	@$(PYTEST) -n $(CLUSTERS) --dist loadfile --no-loadscope-reorder tests/cluster

test-docs: for-clusters ## … of what README.md and docs/ say, for a change of nothing else
	@$(PYTEST) -n 1 -m documents tests

.PHONY: test-stock
test-stock: machine all-tools ## try the two commands on a stock Debian in a virtual machine, through a reboot: 10 GB, half an hour or more
	@$(LOCAL) fetch
	@$(PYTHON) local/tools/packages.py qemu-system-x86_64=qemu-system-x86 mke2fs=e2fsprogs ssh=openssh-client
	@$(ROOT) .venv/bin/python -m tests.stock

.PHONY: for-clusters
for-clusters: machine all-tools
	@$(LOCAL) fetch
	@$(if $(filter true,$(ALL)),$(ROOT) .venv/bin/python -m tests.cluster.tool_image)
	@python -m local.tools.node --bin $(STATE)/bin
	@python -m local.tools.definitions --bin $(STATE)/bin
	@python -m local.tools.environments $(addprefix templates/model-repository/locks/,scikit-learn.lock notebook.txt)

.PHONY: bench
bench: cluster stack ## measure speed as ratios to baselines, for docs/benchmarks.md (ONLY=release RUNS=2 is a quick look)
	@python -m model_serving recover --stack $(STACK)
	@python -m tests.bench $(if $(ONLY),$(addprefix --only ,$(ONLY)),--write) $(if $(RUNS),--runs $(RUNS))
