"""Real servers and processes for the tests, each on a free loopback port, each stopped again."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
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


def find_program(name, *folders):
    """Return the path of a program on PATH or in the folders (patterns), the newest one."""
    found = shutil.which(name)
    if found:
        return found
    candidates = [path for folder in folders for path in Path("/").glob(f"{folder[1:]}/{name}")]
    if not candidates:
        cannot_run(f"{name} is not installed: see tests/install-servers")
    return str(max(candidates))


# Below those that the system hands out by itself. None is handed out twice, for whoever asked for
# it may not have taken it yet, and hardly one that another process of pytest-xdist hands out.
PORTS = iter(random.sample(range(10_000, 32_000), 10_000))


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
        output = subprocess.run(
            ["ps", "-o", "pid=", "-s", str(self.pid)], capture_output=True, text=True
        ).stdout
        return [int(pid) for pid in output.split()]

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


class Redis(Process):
    """A redis-server without persistence."""

    def __init__(self, folder, *options):
        self.port = free_port()
        program = find_program("redis-server")
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", "."]
        super().__init__([program, *arguments, *options], folder / "redis.log", cwd=folder)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        super().start()
        wait_for(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() is None)
        return self


READY = "database system is ready to accept connections"


class Postgres(Process):
    """A Postgres server with a fresh data folder. Started by root, it runs as `postgres`."""

    def __init__(self, folder, *options):
        self.port = free_port()
        folders = ["/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin"]
        self.initdb = find_program("initdb", *folders)
        server = find_program("postgres", *folders)
        # Not in `folder`: pytest keeps its folders to one user, who may not be the server's.
        self.data = Path(tempfile.mkdtemp(prefix="postgres-"))
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",  # the machine itself does not fail in a test
        }
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        super().__init__(
            [server, "-D", str(self.data), *arguments, *options],
            folder / "postgres.log",
            cwd="/",
            user="postgres" if os.getuid() == 0 else None,
        )

    def url(self, database="postgres"):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def start(self):
        if not any(self.data.iterdir()):
            self.create_data()
        ready = self.output.count(READY) + 1 if self.log.exists() else 1
        super().start()
        wait_for(lambda: self.output.count(READY) == ready, what=self.log)
        return self

    def create_data(self):
        user = self.options["user"]
        if user:
            shutil.chown(self.data, user)
        subprocess.run(
            [self.initdb, "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            user=user,
            cwd="/",
        )

    def stop(self, number=signal.SIGINT, seconds=30):
        # SIGINT is Postgres's "fast shutdown"; SIGTERM would wait for every client.
        return super().stop(number, seconds)

    def __exit__(self, *exc):
        super().__exit__(*exc)
        shutil.rmtree(self.data)
