import os
import re
import signal
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
