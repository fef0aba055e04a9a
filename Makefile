# `make` lists what there is to do.

COOKIECUTTER := cookiecutter==2.7.1
BIN := .venv/bin

# What pip's configuration says of other installations is not for a virtual environment.
unexport PIP_PREFIX PIP_TARGET PIP_USER

# $(call find-python,3,12): the first Python of at least that version that can make a virtual
# environment. It asks each one: a shim of pyenv may be on PATH and yet not run.
find-python = for python in python3.14 python3.13 python3.12 python3.11 python3 \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.*/bin/python3; do \
	"$$python" -c 'import ensurepip, sys; sys.version_info >= ($(1), $(2)) and print(sys.executable)' \
	2>/dev/null | grep . && break; done

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

.PHONY: demo
demo: .demo/my_site  ## render the template with its defaults and start the site
	@$(MAKE) --no-print-directory -C .demo/my_site dev

# Rendered once: a second run keeps the data. Remove .demo to start afresh.
.demo/my_site:
	@python=$$($(call find-python,3,12)) || python=$$($(call find-python,3,11)) \
	|| { echo "No Python 3.11 or newer with venv was found: install it (on Debian: python3 and python3-venv)." >&2; exit 1; }; \
	django=$$("$$python" -c 'import sys; print("6.1" if sys.version_info >= (3, 12) else "5.2")'); \
	if [ $$django = 5.2 ]; then echo "Django 6.1 needs Python 3.12, and $$python is older: rendering with Django 5.2 LTS."; fi; \
	echo "Rendering the template and installing the site, which takes a minute or two ..."; \
	"$$python" -m venv --clear .demo/venv \
	&& .demo/venv/bin/python -m pip install --no-user --quiet --disable-pip-version-check $(COOKIECUTTER) \
	&& .demo/venv/bin/cookiecutter --no-input --default-config --output-dir .demo . django_version=$$django create_git_repo=no >/dev/null

.venv/installed: tests/requirements.txt
	@python=$$($(call find-python,3,11)) \
	|| { echo "No Python 3.11 or newer with venv was found: install it (on Debian: python3 and python3-venv)." >&2; exit 1; }; \
	echo "Installing with $$python ..." && "$$python" -m venv --clear .venv
	@$(BIN)/python -m pip install --no-user --quiet --disable-pip-version-check --requirement tests/requirements.txt
	@touch $@

# The servers and the browser that the tests start. Only root can install them, and only Debian's
# packages are known here; elsewhere the tests say what is missing.
.PHONY: servers
servers:
	@tests/install-servers

.PHONY: test
test: .venv/installed servers  ## run the tests; SLOW=1 runs the slow ones too
	@$(BIN)/pytest $(if $(SLOW),,-m "not slow") $(ARGS)

.PHONY: screenshots
screenshots: .venv/installed servers  ## take the README's screenshots anew
	@SCREENSHOTS=$(CURDIR)/docs $(BIN)/pytest -n0 tests/test_screenshots.py

.PHONY: lint
lint: .venv/installed  ## check the style of the template's own code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: bench
bench: .venv/installed servers  ## measure the site against baselines, as ratios
	@$(BIN)/python -m pip install --no-user --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	@$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: deps
deps: .venv/installed  ## upgrade every pinned version, the template's and the site's
	@for folder in tests benchmarks; do $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-strip-extras \
	--python-version 3.11 --custom-compile-command "make deps" \
	--output-file $$folder/requirements.txt $$folder/requirements.in || exit 1; done
	@for django in $$($(BIN)/python -c 'import json; print(*json.load(open("cookiecutter.json"))["django_version"])'); do rm -rf .cache/deps && \
	$(BIN)/cookiecutter --no-input --default-config --output-dir .cache/deps . django_version=$$django create_git_repo=no >/dev/null && \
	$(MAKE) --no-print-directory -C .cache/deps/my_site deps && \
	for name in requirements requirements-dev; do cp .cache/deps/my_site/$$name.txt templates/$$name-$$django.txt || exit 1; done || exit 1; done
