import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest
from django.apps import apps

from config import embedded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runserver(tmp_path):
    """Start the development server without its reloader; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "DEBUG": "true",
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "REDIS_URL": "",
        "TOKEN_WORK_SECONDS": "0",
    }
    manage = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*manage, "migrate"], check=True, env=environment, cwd=ROOT)
    server = subprocess.Popen(
        [*manage, "runserver", "--noreload", str(port)], env=environment, cwd=ROOT
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: urllib.request.urlopen(f"{address}/readyz").status == 200)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def wait_for(condition, seconds=90):
    """Wait until the condition holds, at most so many seconds; it may raise OSError until then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    pytest.fail("waited in vain")


def test_the_development_server_runs_jobs_by_itself(runserver):
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def page():
        return browser.open(f"{runserver}/").read().decode()

    (csrf,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page())
    data = urlencode({"csrfmiddlewaretoken": csrf}).encode()
    browser.open(f"{runserver}/generate-in-background/", data)
    wait_for(lambda: re.search(r"<code>[0-9a-f]{64}</code>", page()))
    assert "djDebug" in page()


def test_the_process_that_watches_the_files_runs_no_jobs(settings, monkeypatch):
    monkeypatch.setattr(embedded, "start", lambda: pytest.fail("started"))
    settings.EMBEDDED = True
    monkeypatch.delenv("RUN_MAIN", raising=False)
    apps.get_app_config("config").ready()
