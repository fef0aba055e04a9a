import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs import embedded

ROOT = Path(__file__).parent.parent


def wanted(name):
    """Return the requirements of a .in file, including those from -r lines."""
    found = []
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found += wanted(line.removeprefix("-r "))
        elif line:
            found.append(Requirement(line))
    return found


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_pins_every_requirement_with_hashes(name):
    lock = (ROOT / f"{name}.txt").read_text()
    pinned = {}
    for package, version in re.findall(r"^([\w.-]+)\S*==(\S+).*\\\n +--hash=sha256:", lock, re.M):
        pinned[canonicalize_name(package)] = version
    for requirement in wanted(f"{name}.in"):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in {name}.txt: run `make deps`"
        assert requirement.specifier.contains(version), f"run `make deps` for {requirement}"


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_has_nothing_that_is_not_required(name):
    lock = (ROOT / f"{name}.txt").read_text()
    asked = {canonicalize_name(requirement.name) for requirement in wanted(f"{name}.in")}
    for entry in re.split(r"\n(?=\w)", lock):
        if re.search(r"via.*-r requirements", entry, re.S):
            package = canonicalize_name(re.split(r"==|\[", entry)[0])
            assert package in asked, f"{package} is in {name}.txt only: run `make deps`"


def test_the_lock_names_the_extras_that_packages_require():
    """For pip 23, `coverage[toml]` is not the pinned `coverage`."""
    lock = (ROOT / "requirements-dev.txt").read_text()
    packages = set(re.findall(r"^([\w.-]+)\S*==", lock, re.M))
    assert "pytest-cov" in packages
    for package in packages & {distribution.name for distribution in metadata.distributions()}:
        for requirement in map(Requirement, metadata.requires(package) or []):
            applies = not requirement.marker or requirement.marker.evaluate({"extra": ""})
            if applies and requirement.extras:
                pin = f"\n{requirement.name}[{','.join(sorted(requirement.extras))}]=="
                assert pin in lock, f"{package} wants {requirement}: run `make deps`"


def test_development_has_productions_versions():
    pins = [
        set(re.findall(r"^\S+==[^\s;]+", (ROOT / f"{name}.txt").read_text(), re.M))
        for name in ("requirements", "requirements-dev")
    ]
    assert pins[0] <= pins[1]


def test_production_has_no_development_tools():
    assert "django-debug-toolbar" not in (ROOT / "requirements.txt").read_text()


# --- `manage.py dev` ------------------------------------------------------------------------------


@pytest.fixture
def port(settings):
    """The port of the site, which is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.PORT = server.getsockname()[1]
    return str(settings.PORT)


@pytest.mark.django_db
def test_without_redis_it_starts_the_development_server(settings, port, monkeypatch):
    class Executed(Exception):
        """Instead of the command, as `execv` never returns."""

    def execute(*arguments):
        raise Executed(*arguments)

    settings.EMBEDDED = True
    monkeypatch.setattr(os, "execv", execute)
    with pytest.raises(Executed) as executed:
        call_command("dev")
    command = [sys.executable, "manage.py", "runserver", port]
    assert executed.value.args == (sys.executable, command)


@pytest.mark.django_db
def test_with_redis_it_starts_the_processes_of_the_development_procfile(
    settings, port, monkeypatch
):
    started, handlers = [], {}
    settings.EMBEDDED = False
    monkeypatch.setattr(os, "environ", {"PATH": "/bin"})
    monkeypatch.setattr(sys, "argv", ["manage.py", "dev"])
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(signal, "raise_signal", started.append)
    monkeypatch.setattr("honcho.command.main", lambda: started.append(sys.argv))
    call_command("dev")
    assert started[0][:3] == ["honcho", "--procfile", "Procfile.dev"]
    assert os.environ == {"PATH": f"{Path(sys.executable).parent}:/bin", "PORT": port}
    handlers[signal.SIGHUP](signal.SIGHUP, None)
    assert started[1] == signal.SIGTERM


@pytest.mark.django_db
def test_a_busy_port_is_reported_with_another_one_to_try(settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.PORT = port = server.getsockname()[1]
        with pytest.raises(CommandError, match=rf"^Port {port} is busy: .* PORT={port + 1}\.$"):
            call_command("dev")


# --- The jobs of the development server ----------------------------------------------------------


MANAGE = [sys.executable, str(ROOT / "manage.py")]


@pytest.fixture
def environment(tmp_path):
    """The environment of development, with the test's own database."""
    return os.environ | {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "DEBUG": "true",
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "REDIS_URL": "",
    }


@pytest.fixture
def runserver(environment):
    """Start the development server without its reloader; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    subprocess.run([*MANAGE, "migrate"], check=True, env=environment)
    server = subprocess.Popen([*MANAGE, "runserver", "--noreload", str(port)], env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: urllib.request.urlopen(f"{address}/readyz").status == 200)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def wait_for(condition, seconds=90):
    """Wait until the condition holds, for at most that long. It may raise OSError until then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    pytest.fail("timed out")


def test_the_development_server_runs_jobs_by_itself(runserver, environment, tmp_path):
    """It also runs those of other processes: they do not share its queue, but its table."""
    code = "from jobs.tasks import clear_sessions; clear_sessions.enqueue()"
    subprocess.run([*MANAGE, "shell", "-c", code], check=True, env=environment)

    def done():
        with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database:
            return database.execute("SELECT status FROM jobs_job").fetchone() == ("SUCCESSFUL",)

    wait_for(done)
    assert "djDebug" in urllib.request.urlopen(f"{runserver}/admin/login/").read().decode()


def test_the_process_that_watches_the_files_runs_no_jobs(settings, monkeypatch):
    monkeypatch.setattr(embedded, "start", lambda: pytest.fail("started"))
    settings.EMBEDDED = True
    monkeypatch.delenv("RUN_MAIN", raising=False)
    apps.get_app_config("jobs").ready()
