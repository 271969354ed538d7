# `make help` lists the targets. Set-up needs Linux, Python 3.11 and Java 17.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-live test-long lint up down status

# What a command imports is compiled by the first that imports it, and kept: with this variable every command would compile it again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
SOURCE ?= simulator
DATA ?= $(TRIBUTARY_DATA)
# The deployment that up, down and status are about: TRIBUTARY_HOME, else that of the demo.
HOME_FOLDER = $(or $(TRIBUTARY_HOME),tributary-home$(if $(filter-out own,$(SOURCE)),/demo-$(SOURCE)))
# Tests in two processes; those of a file stay together.
IN_TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with everything in it, and fetch the Delta jars (the other targets call this)

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing. Install it: apt-get install python3.11 python3.11-venv"; exit 1; }
	@$${JAVA_HOME:+$$JAVA_HOME/bin/}java -version >/dev/null 2>&1 || { echo "Java 17 is missing. Install it: apt-get install openjdk-17-jre-headless"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing. Install it: apt-get install python3.11-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV) (about 7 GB on disk) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@echo "fetching the Delta jars, once per user ..."
	@$(BIN)/python -m lake
	@touch $(STAMP)

demo: setup  ## the whole platform from nothing; SOURCE=simulator|kuairand|movielens, DATA=<folder of the original files>; SOURCE=own: your landing files of TRIBUTARY_HOME
	@$(BIN)/tributary demo --source $(SOURCE) $(if $(and $(DATA),$(filter-out own,$(SOURCE))),--data $(DATA))

test: setup  ## pure tests, Spark, DAG policies: some twenty minutes on two cores
	@$(BIN)/python -m pytest -q -m "not gpu and not cluster and not live and not drill and not long" $(IN_TWO)

test-live: setup  ## the stack for real: a day through the UI, a failed one, killed commands; some four minutes
	@$(BIN)/python -m pytest -q -m "live and not long"

test-long: setup  ## all DAGs at once against hand commands, a day by the schedule, whole public data sets; some twenty minutes
	@$(BIN)/python -m pytest -q -m long

test-fast: setup  ## pure tests: no JVM, no network, about a minute on two cores
	@$(BIN)/python -m pytest -q $(IN_TWO)

lint: setup  ## ruff (rules and format), mypy, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

up: setup  ## start PostgreSQL, Spark Connect and Airflow of TRIBUTARY_HOME, else of the demo's deployment
	@$(BIN)/tributary --home $(HOME_FOLDER) up

down: setup  ## end them with all their children
	@$(BIN)/tributary --home $(HOME_FOLDER) down

status: setup  ## what runs, and where
	@$(BIN)/tributary --home $(HOME_FOLDER) status
