import os
import socket
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.django_db


@pytest.fixture
def dev(monkeypatch, settings):
    """Return a function that runs the command and returns what it executes."""

    def dev(embedded):
        settings.EMBEDDED = embedded
        with socket.create_server(("127.0.0.1", 0)) as server:
            settings.PORT = server.getsockname()[1]
        became = []
        monkeypatch.setattr(os, "execve", lambda *arguments: became.extend(arguments))
        call_command("dev")
        assert became[0] == Path(sys.executable)
        assert became[2]["PATH"].startswith(f"{Path(sys.executable).parent}{os.pathsep}")
        assert became[2]["PORT"] == str(settings.PORT)
        return became[1][1:]

    return dev


def test_without_redis_it_starts_the_development_server(dev, settings):
    assert dev(embedded=True) == ["manage.py", "runserver", str(settings.PORT)]


def test_with_redis_it_starts_the_processes_of_the_development_procfile(dev):
    assert dev(embedded=False)[:4] == ["-m", "honcho", "--procfile", "Procfile.dev"]


def test_a_busy_port_is_reported_with_another_one_to_try(settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.PORT = port = server.getsockname()[1]
        with pytest.raises(CommandError, match=rf"^Port {port} is busy: .* PORT={port + 1}\.$"):
            call_command("dev")
