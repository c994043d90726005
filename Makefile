# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := $(CURDIR)/.venv
PUBLISH_VENV := $(CURDIR)/.cache/publish-venv
export PATH := $(VENV)/bin:$(PATH)
# Trust the system's CA certificates, which may include those of a company proxy, instead of uv's own list.
export UV_SYSTEM_CERTS := true

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One virtualenv with two sets of packages: those for `make up`, and in addition those for `make test`.
$(VENV)/bin/uv:
	@echo "Creating .venv with $$(scripts/python)"
	@"$$(scripts/python)" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r roles/app/files/tools-requirements.txt

$(VENV)/.controller: requirements/controller.txt | $(VENV)/bin/uv
	@echo "Installing Ansible and its collections into .venv"
	@$(VENV)/bin/uv pip install --quiet --python $(VENV) --require-hashes -r requirements/controller.txt
	@touch $@

$(VENV)/.test: requirements/test.txt | $(VENV)/bin/uv
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12) and "The tests need Python 3.12 or newer, for their version of ansible-core, but .venv has " + sys.version.split()[0] + ": install a newer Python, run rm -r .venv, and try again")'
	@echo "Installing the test tools into .venv"
	@$(VENV)/bin/uv pip install --quiet --python $(VENV) --require-hashes -r requirements/test.txt
	@touch $@ $(VENV)/.controller

$(PUBLISH_VENV)/.installed: requirements/publish.txt | $(VENV)/.test
	@echo "Installing the tools of publishing into .cache/publish-venv"
	@uv venv --quiet --clear --python $(VENV)/bin/python $(PUBLISH_VENV)
	@uv pip install --quiet --python $(PUBLISH_VENV) --require-hashes -r requirements/publish.txt
	@touch $@

.PHONY: up
up: $(VENV)/.controller ## Start the example panel on this machine, without root (PORT=8000)
	@ansible-playbook playbooks/site.yml -i inventories/dev
	@scripts/summary .dev/data/host.json

.PHONY: down
down: ## Stop the example panel; its data stays in .dev
	@"$$(scripts/python)" roles/supervisor/files/stop.py --config $(CURDIR)/.dev/etc/supervisord.conf \
		--program $(CURDIR)/.dev/slots/blue/release/venv/bin/python

.PHONY: test
test: $(VENV)/.test $(PUBLISH_VENV)/.installed ## Run all tests of CI (SCENARIO=name, CHANGED=1, FRESH=1: docs/testing.md)
	@scripts/stages lint unit publish molecule

.PHONY: lint
lint: $(VENV)/.test ## Check style, types, imports, links, changelog fragments and the workflow
	@scripts/stages lint

.PHONY: unit
unit: $(VENV)/.test ## Run the unit tests, without a container
	@scripts/stages unit

.PHONY: publish
publish: $(VENV)/.test $(PUBLISH_VENV)/.installed ## Check that the collection and its pages can be published
	@scripts/stages publish

.PHONY: molecule
molecule: $(VENV)/.test ## Run the scenarios on systemd hosts (SCENARIO=name for one)
	@scripts/stages molecule

.PHONY: bench-converge
bench-converge: $(VENV)/.test ## Measure site.yml on a Debian 13 host, compared with 100 empty tasks
	@uv pip install --quiet --python $(VENV) --require-hashes -r requirements/mitogen.txt
	@tests/lab/lab up
	@DOCKER_HOST="$$(tests/lab/lab socket)" python tests/bench/converge.py

.PHONY: bench-switch
bench-switch: $(VENV)/.test ## Measure 100 switches under load, nginx -s reload, rollback and deploy
	@tests/lab/lab up
	@DOCKER_HOST="$$(tests/lab/lab socket)" python tests/bench/switch.py

.PHONY: bench-backup
bench-backup: $(VENV)/.test ## Measure backups, compared with tar and pigz, restic and borg (ROUNDS=5 MEGABYTES=443)
	@python tests/bench/backup.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MEGABYTES),--megabytes $(MEGABYTES))

.PHONY: recording
recording: $(VENV)/.test ## Record a deploy and a rollback for the README: docs/images/deploy.svg
	@tests/lab/lab up
	@DOCKER_HOST="$$(tests/lab/lab socket)" python tests/bench/recording.py

.PHONY: build
build: $(VENV)/.controller ## Build the collection's archive from the last commit
	@rm -rf .cache/build && mkdir -p .cache/build
	@git archive HEAD | tar --extract --directory .cache/build
	@ansible-galaxy collection build --force .cache/build --output-path .

.PHONY: docs
docs: $(VENV)/.controller ## Generate the tables of docs/inventory.md, docs/panelctl.md and the roles' README.md
	@$(VENV)/bin/python scripts/docs

.PHONY: site
site: $(VENV)/.test $(PUBLISH_VENV)/.installed ## Build the documentation site into .cache/site/html
	@$(VENV)/bin/python scripts/publish site

.PHONY: lock
lock: $(VENV)/bin/uv ## Update the pinned requirements
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/controller.in -o requirements/controller.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade requirements/test.in -o requirements/test.txt
	@uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --upgrade requirements/publish.in -o requirements/publish.txt
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/supervisor.in -o roles/supervisor/files/requirements.txt
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/mitogen.in -o requirements/mitogen.txt
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/uv.in -o roles/app/files/tools-requirements.txt
