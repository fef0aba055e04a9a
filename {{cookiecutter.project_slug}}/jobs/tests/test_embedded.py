import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from django.apps import apps

from jobs import embedded

MANAGE = [sys.executable, str(Path(__file__).parent.parent.parent / "manage.py")]


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
    pytest.fail("waited in vain")


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
