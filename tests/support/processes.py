"""Processes that tests start, and waiting for them."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

CI = bool(os.environ.get("CI"))

# A shell makes its background processes ignore Ctrl-C, and processes that the tests start would
# ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def cannot_run(reason):
    """Skip the test and say why. In CI, where everything can be installed, fail it."""
    import pytest

    (pytest.fail if CI else pytest.skip)(reason)


def locate(name, *folders):
    """Return the path of the newest such program on PATH or in the folders (patterns), or None."""
    candidates = [path for folder in folders for path in Path("/").glob(f"{folder[1:]}/{name}")]
    return shutil.which(name) or (str(max(candidates)) if candidates else None)


def find_program(name, *folders):
    """Like `locate`, but if there is no such program, the test cannot run."""
    return locate(name, *folders) or cannot_run(
        f"{name} is not installed: see scripts/install-servers"
    )


# Below the ports that the system gives out. Each pytest-xdist worker has its own share, and no port
# is returned twice, because the first caller may not use it yet.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
SHARE = range(10_000 + WORKER, 32_000, WORKERS)
PORTS = iter(random.sample(SHARE, len(SHARE)))


def free_port():
    """Return a port of the loopback interface that nobody listens on."""
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


def wait_for(condition, seconds=30, what="the condition", pause=0.05):
    """Return the condition's value once it is true, or raise TimeoutError.

    A connection that fails, or breaks in the middle of an answer, counts as false.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        time.sleep(pause)
    raise TimeoutError(f"timed out after {seconds} s waiting for {what}")


def answers(url):
    """Return whether the URL answers with success."""
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.status == 200


def members(session):
    """Return the ids of the processes in a session, which outlives its first process."""
    command = ["ps", "-o", "pid=", "-s", str(session)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    return [int(pid) for pid in output.split()]


class Process:
    """A process in its own group, with its output in a file."""

    def __init__(self, command, log, env=None, cwd=None, user=None):
        self.command = command
        self.log = Path(log)
        self.options = {"env": env, "cwd": cwd, "user": user}
        self.popen = None

    def start(self):
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self.options,
            )
        return self

    @property
    def pid(self):
        return self.popen.pid

    @property
    def output(self):
        return self.log.read_text(errors="replace")

    def send(self, number):
        """Send a signal to the process only."""
        self.popen.send_signal(number)

    def send_group(self, number):
        """Send a signal to the process and its children, as Heroku and a terminal do."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, seconds=30):
        """Wait for the process to end; return its exit code or raise subprocess.TimeoutExpired."""
        return self.popen.wait(seconds)

    def stop(self, number=signal.SIGTERM, seconds=30):
        """End the process and its children; return its exit code."""
        if self.popen.poll() is None:
            self.send(number)
        try:
            return self.wait(seconds)
        finally:
            self.send_group(signal.SIGKILL)

    def children(self):
        """Return the ids of the processes in its session, its own included."""
        return members(self.pid)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            # It runs already when it does not answer, or when Ctrl-C comes while it starts.
            if self.popen:
                self.__exit__()
            raise

    def __exit__(self, *exc):
        self.stop()
