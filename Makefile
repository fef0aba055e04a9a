# `make` lists the targets.

# The oldest Python for the template's own code, from pyproject.toml.
FLOOR := $(shell sed -n 's/^requires-python = ">=\(.*\)"/\1/p' pyproject.toml)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --no-user --quiet --disable-pip-version-check

# pip's configuration for other installations must not affect the virtual environment.
unexport PIP_DRY_RUN PIP_PREFIX PIP_PYTHON PIP_ROOT PIP_TARGET PIP_USER

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

.PHONY: demo
demo: .demo/my_site  ## render the template with its defaults and start the site
	@$(MAKE) --no-print-directory -C .demo/my_site dev

# Rendered once, so a second run keeps the data. Remove .demo to start again.
.demo/my_site:
	@scripts/demo $(FLOOR)

# Git may only have touched the file: install only if its content differs.
.venv/installed: tests/requirements.txt
	@cmp -s $< $@ || scripts/make-venv .venv $(FLOOR)
	@cmp -s $< $@ || $(PIP) --requirement $<
	@$(BIN)/python -c "import pytest" 2>&- || { echo "pip installed elsewhere: see pip config list" >&2; exit 1; }
	@cp $< $@

.PHONY: servers
servers:
	@scripts/install-servers

.PHONY: test
test: servers .venv/installed  ## run the tests; SLOW=1 runs the slow ones too
	@$(BIN)/pytest $(if $(SLOW),,-m "not slow") $(ARGS)

.PHONY: screenshots
screenshots: servers .venv/installed  ## take the README's screenshots again
	@SCREENSHOTS=$(CURDIR)/docs $(BIN)/pytest -n0 tests/test_screenshots.py

CODE := hooks local_extensions.py templates tests benchmarks "{{cookiecutter.project_slug}}"

.PHONY: lint
lint: .venv/installed  ## check the style and Python version of the template's own code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/vermin --target=$(FLOOR)- --violations --no-tips --quiet --exclude-regex '}\.py$$' $(CODE)

.PHONY: bench
bench: servers .venv/installed  ## compare the site's speed with a plain one's
	@$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: deps
deps: .venv/installed  ## upgrade every pinned version, the template's and the site's
	@scripts/deps $(FLOOR)
