"""The interpreters of this machine, and virtual environments for a site."""

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from support.processes import cannot_run
from support.template import TEMPLATE

CACHE = TEMPLATE / ".cache"
PYTHON_FLOOR = {"6.1": (3, 12), "5.2": (3, 11)}


def find_pythons():
    """Return the interpreters of this machine that run, by version, like {(3, 13): path}.

    They are looked for on PATH, among uv's and in pyenv's folder. Each one is asked for its
    version, because a shim of pyenv may stand for an interpreter that is not there.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path(pwd.getpwuid(os.getuid()).pw_dir, ".pyenv"))
    candidates = [
        sys.executable,
        *filter(None, (shutil.which(f"python3.{minor}") for minor in range(11, 16))),
        *map(str, pyenv.glob("versions/3.*/bin/python3")),
    ]
    uv = subprocess.run(
        [Path(sys.executable).with_name("uv"), "python", "list", "--only-installed"],
        capture_output=True,
        text=True,
    )
    candidates += [line.split()[1] for line in uv.stdout.splitlines()]
    pythons = {}
    for candidate in candidates:
        asked = subprocess.run(
            [candidate, "-c", "import sys; print(*sys.version_info[:2], sys._base_executable)"],
            capture_output=True,
            text=True,
        )
        if asked.returncode == 0:
            major, minor, executable = asked.stdout.strip().split(" ", 2)
            pythons.setdefault((int(major), int(minor)), executable)
    return pythons


@contextmanager
def locked(path):
    """Let one test process at a time in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def environment_of(requirements, python, plain_pip=False):
    """Return the bin folder of a virtual environment with what the file pins, made once.

    By uv because it is fast, or by plain pip where that is what is tested.
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
            uv = Path(sys.executable).with_name("uv")
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, venv], check=True)
            subprocess.run(
                [uv, "pip", "sync", "--quiet", "--python", venv, requirements], check=True
            )
            (venv / "installed").touch()
    return venv / "bin"


def site_environment(site, django_version, requirements="requirements-dev.txt", plain_pip=False):
    """Return the bin folder of an environment for the site, on the newest Python there is."""
    pythons = {
        version: path
        for version, path in find_pythons().items()
        if PYTHON_FLOOR[django_version] <= version <= (3, 14)
    }
    if not pythons:
        floor = ".".join(map(str, PYTHON_FLOOR[django_version]))
        cannot_run(f"Django {django_version} needs Python {floor} or newer: none was found")
    return environment_of(site / requirements, pythons[max(pythons)], plain_pip)
