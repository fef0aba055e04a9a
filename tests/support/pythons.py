"""This machine's interpreters, and virtual environments for a site."""

import fcntl
import hashlib
import os
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jinja2
import pytest

from support.processes import cannot_run
from support.template import DEFAULTS, DJANGO_VERSIONS, TEMPLATE

CACHE = TEMPLATE / ".cache"
HOME = os.environ.get("HOME", "")  # not the tests' own home


def version(text):
    return tuple(map(int, text.split(".")))


# The oldest Python for the template, as text, and for a site with each Django.
PROJECT = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]
FLOOR = PROJECT["requires-python"].removeprefix(">=")
RULE = jinja2.Template(DEFAULTS["__python_floor"])
SITE_FLOOR = {
    django: RULE.render(cookiecutter={"django_version": django}) for django in DJANGO_VERSIONS
}


@cache
def find_pythons():
    """Return this machine's working interpreters by version, like {(3, 13): path}."""
    found = subprocess.run(
        [TEMPLATE / "scripts/find-python", FLOOR],
        env=os.environ | {"HOME": HOME},
        capture_output=True,
        text=True,
    )
    pythons = {}
    for python in [sys.executable, *found.stdout.splitlines()]:
        asked = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2], sys._base_executable)"],
            check=True,
            capture_output=True,
            text=True,
        )
        major, minor, executable = asked.stdout.strip().split(" ", 2)
        pythons.setdefault((int(major), int(minor)), executable)
    return pythons


def newest_django():
    """Return the newest of the Django versions that an interpreter of this machine can run."""
    newest_python = max(find_pythons())
    return next(d for d in DJANGO_VERSIONS if version(SITE_FLOOR[d]) <= newest_python)


def quick_variants():
    """Return parameters for `variant`: the newest Django, and the others marked slow."""
    newest = newest_django()
    others = [django for django in DJANGO_VERSIONS if django != newest]
    return [newest, *(pytest.param(django, marks=pytest.mark.slow) for django in others)]


@contextmanager
def locked(path):
    """Let in one test process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def environment_of(requirements, python, plain_pip=False):
    """Return the bin folder of a virtual environment with the pinned packages, made once.

    uv installs them, because it is fast, or plain pip where the test is about pip.
    """
    key = f"{python}\n{plain_pip}\n{requirements.read_text()}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    venv = CACHE / "venvs" / digest
    with locked(venv.with_suffix(".lock")):
        if not (venv / "installed").exists() and plain_pip:
            subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
            pip = [venv / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "--requirement", requirements], check=True)
            (venv / "installed").touch()
        elif not (venv / "installed").exists():
            # The system's certificates, as pip uses them.
            uv = [Path(sys.executable).with_name("uv"), "--quiet", "--system-certs"]
            subprocess.run([*uv, "venv", "--clear", "--python", python, venv], check=True)
            subprocess.run([*uv, "pip", "sync", "--python", venv, requirements], check=True)
            (venv / "installed").touch()
    return venv / "bin"


def site_environment(site, django_version, requirements="requirements-dev.txt", plain_pip=False):
    """Return the bin folder of an environment for the site, on this machine's newest Python."""
    floor = SITE_FLOOR[django_version]
    pythons = {
        found: path for found, path in find_pythons().items() if version(floor) <= found <= (3, 14)
    }
    if not pythons:
        cannot_run(f"Django {django_version} needs Python {floor} or newer: none was found")
    return environment_of(site / requirements, pythons[max(pythons)], plain_pip)
