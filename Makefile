# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
# uv brings its own list of authorities; the system's knows a company's proxy too.
export UV_SYSTEM_CERTS := true

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One virtualenv, two depths: what `make up` needs, and what `make test` needs on top of it.
$(VENV)/bin/uv:
	@echo "Making .venv with $$(scripts/python)"
	@"$$(scripts/python)" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r roles/app/files/tools-requirements.txt

$(VENV)/.controller: requirements/controller.txt | $(VENV)/bin/uv
	@echo "Installing Ansible and its collections into .venv"
	@$(VENV)/bin/uv pip install --quiet --python $(VENV) --require-hashes -r requirements/controller.txt
	@touch $@

$(VENV)/.test: requirements/test.txt | $(VENV)/bin/uv
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12) and "The tests need Python 3.12 or newer, for the ansible-core that they are written for; .venv has " + sys.version.split()[0] + ": install a newer one beside it, rm -r .venv, and try again")'
	@echo "Installing the tools of the tests into .venv"
	@$(VENV)/bin/uv pip install --quiet --python $(VENV) --require-hashes -r requirements/test.txt
	@touch $@ $(VENV)/.controller

.PHONY: up
up: $(VENV)/.controller ## Bring the example panel up on this machine, without root (PORT=8000)
	@ansible-playbook playbooks/site.yml -i inventories/dev
	@scripts/summary .dev/data/host.json

.PHONY: down
down: ## Stop it; data stays below .dev
	@"$$(scripts/python)" roles/supervisor/files/stop.py --config $(CURDIR)/.dev/etc/supervisord.conf \
		--program $(CURDIR)/.dev/slots/blue/release/venv/bin/python

.PHONY: test
test: $(VENV)/.test ## Everything that CI runs (SCENARIO=name, CHANGED=1, FRESH=1: docs/testing.md)
	@scripts/stages lint unit molecule

.PHONY: lint
lint: $(VENV)/.test ## Style, types, and defaults against argument specs
	@scripts/stages lint

.PHONY: unit
unit: $(VENV)/.test ## Python tests, without a container
	@scripts/stages unit

.PHONY: molecule
molecule: $(VENV)/.test ## Scenarios on real systemd hosts (SCENARIO=default for one)
	@scripts/stages molecule

.PHONY: bench-converge
bench-converge: $(VENV)/.test ## How long site.yml takes on a Debian 13 host, beside 100 bare tasks
	@uv pip install --quiet --python $(VENV) --require-hashes -r requirements/mitogen.txt
	@tests/lab/lab up
	@DOCKER_HOST="$$(tests/lab/lab socket)" python tests/bench/converge.py

.PHONY: bench-switch
bench-switch: $(VENV)/.test ## What a switch costs: load during 100 of them, nginx -s reload, rollback, deploy
	@tests/lab/lab up
	@DOCKER_HOST="$$(tests/lab/lab socket)" python tests/bench/switch.py

.PHONY: bench-backup
bench-backup: $(VENV)/.test ## What backups cost, beside tar with pigz, restic and borg (ROUNDS=5 MEGABYTES=443)
	@python tests/bench/backup.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MEGABYTES),--megabytes $(MEGABYTES))

.PHONY: build
build: $(VENV)/.controller ## Build the collection's archive
	@ansible-galaxy collection build --force

.PHONY: docs
docs: $(VENV)/.controller ## Write the tables of docs/inventory.md and docs/panelctl.md
	@$(VENV)/bin/python scripts/docs

.PHONY: lock
lock: $(VENV)/bin/uv ## Pin the requirements anew
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/controller.in -o requirements/controller.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade requirements/test.in -o requirements/test.txt
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/supervisor.in -o roles/supervisor/files/requirements.txt
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/mitogen.in -o requirements/mitogen.txt
	@uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --upgrade requirements/uv.in -o roles/app/files/tools-requirements.txt
