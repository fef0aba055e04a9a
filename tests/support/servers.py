"""Postgres and Redis, each on a free loopback port, and stopped afterwards."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg2

from support.processes import Process, find_program, free_port, wait_for


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


POSTGRES_FOLDERS = ["/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin"]


class Postgres(Process):
    """A Postgres server with a new data folder. If root starts it, it runs as `postgres`."""

    READY = "database system is ready to accept connections"

    def __init__(self, folder, *options):
        self.port = free_port()
        server = find_program("postgres", *POSTGRES_FOLDERS)
        # Not in `folder`: only one user can read pytest's folders, who may not be the server's.
        self.data = Path(tempfile.mkdtemp(prefix="postgres-"))
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",  # no test makes the machine itself fail
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
        ready = self.output.count(self.READY) + 1 if self.log.exists() else 1
        super().start()
        wait_for(lambda: self.output.count(self.READY) == ready, what=self.log)
        return self

    def create_data(self):
        self.run("initdb", "-A", "trust")

    def run(self, program, *arguments):
        """Run a program that fills the data folder."""
        user = self.options["user"]
        if user:
            shutil.chown(self.data, user)
        command = [find_program(program, *POSTGRES_FOLDERS), "-D", self.data, "-U", "postgres"]
        subprocess.run(
            [*command, "--no-sync", *arguments],
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


class Standby(Postgres):
    """A hot standby of a running Postgres server: it answers, but takes no writes."""

    READY = "database system is ready to accept read"

    def __init__(self, folder, primary):
        super().__init__(folder)
        self.primary = primary

    def create_data(self):
        address = ["-h", "127.0.0.1", "-p", str(self.primary.port)]
        self.run("pg_basebackup", *address, "--write-recovery-conf", "--checkpoint=fast")


def execute(url, *statements):
    """Execute SQL statements one by one; return the rows of the last one, if it has any."""
    if url.startswith("sqlite:"):
        # No isolation level means autocommit.
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), 20, isolation_level=None)
    else:
        connection = psycopg2.connect(url)
        connection.autocommit = True
    with closing(connection), closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None
