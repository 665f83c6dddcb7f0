# pgbalise: set up, test, lint, demonstrate and measure on Debian 12 with PostgreSQL 15.
#
#   make test               everything that must pass before a change lands
#   make test-matrix        the marked views on PostgreSQL 13 to 18 (fetches the servers once)
#   make test ARGS='-k x'   ARGS goes to pytest, to `pgbalise demo` or to the benchmark
#   make setup VENV=/path   another place for the virtual environment

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PROJECT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
PG_MAJOR := 15
PG_CONFIG ?= /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config
# PL/Python embeds Debian's interpreter, so the libraries are installed for that one.
SYSTEM_PYTHON ?= /usr/bin/python3
PATH_HASH := $(shell printf %s '$(PROJECT)' | sha256sum | cut -c1-12)

# Started by root, PostgreSQL runs as user postgres, who must be able to read the libraries: a
# project below a folder closed to others (such as /root) keeps its environment in /var/tmp.
VENV ?= $(shell \
  if [ "$$(id -u)" = 0 ]; then \
    folder='$(PROJECT)'; \
    while [ "$$folder" != / ]; do \
      case "$$(stat -c %A "$$folder")" in (*[xt]) ;; (*) echo /var/tmp/pgbalise-venv-$(PATH_HASH); exit ;; esac; \
      folder="$$(dirname "$$folder")"; \
    done; \
  fi; \
  echo '$(PROJECT)/.venv')
PY := $(VENV)/bin/python
# Named after the project's place, so that a copied tree does not use its original's environment.
STAMP := $(VENV)/.pgbalise-$(PATH_HASH)

PACKAGES := postgresql-$(PG_MAJOR) postgresql-plpython3-$(PG_MAJOR) postgresql-server-dev-$(PG_MAJOR) \
  postgresql-$(PG_MAJOR)-pgaudit sqlsmith openssl python3-venv libpango-1.0-0 libpangoft2-1.0-0 \
  clamav rspamd
ARGS ?=
MATRIX ?= 13,14,15,16,17,18

.PHONY: help setup system-packages test test-slow test-matrix installcheck lint demo bench bench-robustness clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' '$(PROJECT)/Makefile'

setup: $(STAMP) ## install what is missing: system packages and the virtual environment

system-packages:
	@missing=(); \
	[ -x /usr/lib/postgresql/$(PG_MAJOR)/bin/initdb ] || missing+=(postgresql-$(PG_MAJOR)); \
	[ -e /usr/lib/postgresql/$(PG_MAJOR)/lib/plpython3.so ] || missing+=(postgresql-plpython3-$(PG_MAJOR)); \
	[ -e /usr/lib/postgresql/$(PG_MAJOR)/lib/pgxs/src/makefiles/pgxs.mk ] || missing+=(postgresql-server-dev-$(PG_MAJOR)); \
	[ -e /usr/lib/postgresql/$(PG_MAJOR)/lib/pgaudit.so ] || missing+=(postgresql-$(PG_MAJOR)-pgaudit); \
	for program in sqlsmith openssl; do command -v "$$program" >/dev/null || missing+=("$$program"); done; \
	command -v clamscan >/dev/null || missing+=(clamav); \
	command -v rspamadm >/dev/null || missing+=(rspamd); \
	for library in libpango-1.0 libpangoft2-1.0; do compgen -G "/usr/lib/*/$$library.so.0" >/dev/null || missing+=("$${library}-0"); done; \
	compgen -G '/usr/lib/python3.*/ensurepip/__init__.py' >/dev/null || missing+=(python3-venv); \
	[ $${#missing[@]} -gt 0 ] || exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
	  echo "make setup: missing $${missing[*]}; run: sudo apt-get install -y $${missing[*]}" >&2; exit 2; \
	fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "make setup: missing $${missing[*]}, and there is no apt-get here; install them by hand" >&2; exit 2; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	echo "setup: installing $${missing[*]} (a minute or two)"; \
	if ! { apt-get update && apt-get install -y --no-install-recommends $(PACKAGES); } >"$$log" 2>&1 </dev/null; then \
	  tail -n 20 "$$log" >&2; \
	  echo "make setup: apt-get failed (its last lines are above); run: apt-get install -y $(PACKAGES)" >&2; exit 2; \
	fi

$(STAMP): $(PROJECT)/pyproject.toml $(PROJECT)/.ci/constraints.txt | system-packages
	@umask 022; \
	"$(SYSTEM_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make setup: $(SYSTEM_PYTHON) is older than Python 3.11; use Debian 12 or later" >&2; exit 2; }; \
	mkdir -p "$$(dirname '$(VENV)')"; \
	mkdir '$(VENV)' 2>/dev/null || true; \
	if [ -L '$(VENV)' ] || [ ! -O '$(VENV)' ] || [ -n "$$(find '$(VENV)' -maxdepth 0 -perm /022)" ]; then \
	  echo "make setup: $(VENV) is a link, another user's or writable by others; remove it or set VENV" >&2; exit 2; \
	fi; \
	if [ -n "$$(ls -A '$(VENV)')" ] && [ ! -e '$(VENV)/pyvenv.cfg' ]; then \
	  echo "make setup: $(VENV) holds something else than a virtual environment; remove it or set VENV" >&2; exit 2; \
	fi; \
	echo "setup: creating $(VENV)"; \
	"$(SYSTEM_PYTHON)" -m venv --clear '$(VENV)'; \
	echo "setup: installing the pinned dependencies (about a minute)"; \
	PIP_CONSTRAINT='$(PROJECT)/.ci/constraints.txt' PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
	  '$(PY)' -m pip install -qq --progress-bar off --editable '$(PROJECT)[dev]'; \
	touch '$@'; \
	echo "setup: ready"

test: setup lint ## set up, lint, and run the tests (without the slow ones)
	@cd '$(PROJECT)' && '$(PY)' -m pytest $(ARGS)

test-slow: setup ## run the slow tests only
	@cd '$(PROJECT)' && '$(PY)' -m pytest -m slow $(ARGS)

# Debian 12 has 15; the others are fetched by npm and pip into a cache outside the project.
test-matrix: setup ## the marked views on PostgreSQL 13, 14, 15, 16, 17 and 18
	@cd '$(PROJECT)' && PGBALISE_MATRIX=$(MATRIX) '$(PY)' -m pytest -m matrix $(ARGS)

installcheck: ## the extension's regression test, on the server of PGHOST, as a superuser
	@$(MAKE) -C '$(PROJECT)/sql' installcheck PG_CONFIG='$(PG_CONFIG)'

lint: setup ## ruff (rules and format) and mypy --strict
	@cd '$(PROJECT)' && '$(PY)' -m ruff check .
	@cd '$(PROJECT)' && '$(PY)' -m ruff format --check .
	@cd '$(PROJECT)' && '$(PY)' -m mypy

demo: setup ## a leak found and traced, from an empty server to the verdict
	@cd '$(PROJECT)' && '$(PY)' -m pgbalise demo $(ARGS)

bench: setup ## measure what marking costs and what tracing needs
	@cd '$(PROJECT)' && '$(PY)' -m bench $(ARGS)

bench-robustness: setup ## whom a trace names of damaged, keyless and merged leaks (about half an hour)
	@cd '$(PROJECT)' && '$(PY)' -m bench robustness linkage keyless $(ARGS)

clean: ## remove the virtual environment and caches
	@if [ -e '$(STAMP)' ] || [ '$(VENV)' = '$(PROJECT)/.venv' ]; then rm -rf -- '$(VENV)'; fi
	@cd '$(PROJECT)' && rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find '$(PROJECT)' -name __pycache__ -type d -prune -exec rm -rf -- {} +
