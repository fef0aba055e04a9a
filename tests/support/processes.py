"""Processes that the tests start, and what to wait for."""

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

# Where this was started in the background of a shell, Ctrl-C is ignored, and all that the tests
# start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def cannot_run(reason):
    """Skip the test, saying why; in CI, where everything can be had, fail it."""
    import pytest

    (pytest.fail if CI else pytest.skip)(reason)


def locate(name, *folders):
    """Return the path of a program on PATH or in the folders (patterns), the newest, or None."""
    candidates = [path for folder in folders for path in Path("/").glob(f"{folder[1:]}/{name}")]
    return shutil.which(name) or (str(max(candidates)) if candidates else None)


def find_program(name, *folders):
    """Return the path of a program as `locate` does; without it the test cannot run."""
    return locate(name, *folders) or cannot_run(
        f"{name} is not installed: see scripts/install-servers"
    )


# Below those that the system hands out by itself. Each worker of pytest-xdist has its own share,
# and none is handed out twice: whoever asked for it may not have taken it yet.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
SHARE = range(10_000 + WORKER, 32_000, WORKERS)
PORTS = iter(random.sample(SHARE, len(SHARE)))


def free_port():
    """Return a port of the loopback interface on which nobody listens."""
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


def wait_for(condition, seconds=30, what="the condition", pause=0.05):
    """Return the condition's value once it is true, or raise TimeoutError.

    A connection that fails, or ends in the middle of an answer, counts as false.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        time.sleep(pause)
    raise TimeoutError(f"waited {seconds} s in vain for {what}")


def answers(url):
    """Whether the URL answers with a success."""
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.status == 200


def members(session):
    """Return the ids of the processes in a session; it outlives the process that began it."""
    command = ["ps", "-o", "pid=", "-s", str(session)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    return [int(pid) for pid in output.split()]


class Process:
    """A process in a group of its own, with its output in a file."""

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
        """Send a signal to the process alone."""
        self.popen.send_signal(number)

    def send_group(self, number):
        """Send a signal to the process and all its children, as Heroku and a terminal do."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, seconds=30):
        """Return the exit code, once the process has ended. Raise subprocess.TimeoutExpired."""
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
        """Return the ids of the processes that are in its session, itself included."""
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
