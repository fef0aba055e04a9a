import fcntl
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter
from processes import Postgres, Redis, cannot_run

TEMPLATE = Path(__file__).parent.parent
CACHE = TEMPLATE / ".cache"
DJANGO_VERSIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text())["django_version"]
PYTHON_FLOOR = {"6.1": (3, 12), "5.2": (3, 11)}

# Statements that fill the site's table with the tokens of others: most of them ready, a few pending
# or failed, and 2500 that have expired. To make the indexes afterwards is three times as quick.
MILLION_TOKENS = (
    "UPDATE pg_index SET indisready = false WHERE indrelid = 'tokens_token'::regclass",
    "INSERT INTO tokens_token (id, visitor, value, state, created) "
    "SELECT gen_random_uuid(), gen_random_uuid(), repeat('0', 64), "
    "CASE number % 50000 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' ELSE 'ready' END, "
    "now() - CASE WHEN number <= 2500 THEN interval '25 hours' "
    "ELSE random() * interval '23 hours' END FROM generate_series(1, 1000000) number",
    "REINDEX TABLE tokens_token",
    "VACUUM ANALYZE tokens_token",
)


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory):
    """Give Cookiecutter and Git a home of the tests' own, with an identity for commits."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\nname = Tester\nemail = tester@example.com\n")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HOME", str(home))
        # What the tests start must see only the environment that they give it.
        for name in ("CI", "DATABASE_URL", "DEBUG", "PORT", "REDIS_URL", "SECRET_KEY"):
            monkeypatch.delenv(name, raising=False)
        yield


def pytest_terminal_summary(terminalreporter):
    """Show what tests have recorded about themselves, like the seed of what they tried."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


def bake(folder, hooks=True, **answers):
    """Render the template into the folder with these answers; return the path of the site.

    Without hooks it is quicker and has no .env.
    """
    return Path(
        cookiecutter(
            str(TEMPLATE),
            no_input=True,
            extra_context=answers,
            output_dir=str(folder),
            default_config=True,
            accept_hooks=hooks,
        )
    )


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


@pytest.fixture(scope="session", params=DJANGO_VERSIONS)
def variant(request):
    """Each Django version on offer."""
    return request.param


@pytest.fixture(scope="session")
def site(variant, tmp_path_factory):
    """A site baked with the defaults but for the Django version."""
    return bake(tmp_path_factory.mktemp(f"django-{variant}"), django_version=variant)


@pytest.fixture(scope="session")
def site_bin(site, variant):
    """The bin folder of the environment for developing that site."""
    return site_environment(site, variant)


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server
