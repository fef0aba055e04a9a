"""Failovers: a Redis or Postgres that goes on answering, but refuses writes."""

import subprocess
import time
from contextlib import ExitStack, closing

import psycopg2
import pytest
import redis as redis_client
from support.http import Visitor
from support.processes import Process, free_port, wait_for
from support.pythons import site_environment
from support.servers import Postgres, Redis

SECONDS = 30  # generous for a busy machine: it takes one request, or one tick of the clock


@pytest.fixture(scope="module")
def site(bake_session):
    return bake_session(create_git_repo=False)


class Forwarder(Process):
    """The name in a URL: new connections go to the port that a file contains."""

    CODE = """
import asyncio, pathlib, sys

async def pipe(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

async def forward(reader, writer):
    port = int(pathlib.Path(sys.argv[2]).read_text())
    other = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(pipe(reader, other[1]), pipe(other[0], writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(forward, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""

    def __init__(self, folder, target):
        self.port, self.target = free_port(), folder / "target"
        self.lead_to(target)
        command = ["python3", "-c", self.CODE, str(self.port), str(self.target)]
        super().__init__(command, folder / "forwarder.log")

    def lead_to(self, port):
        self.target.write_text(str(port))


@pytest.fixture
def stack(site, tmp_path, monkeypatch):
    """Start web, worker and clock with Postgres and two Redis servers; a name leads to one."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    bin_folder = site_environment(site, "6.1")
    port = free_port()
    with ExitStack() as servers:
        old, new = (servers.enter_context(Redis(tmp_path / which)) for which in ("old", "new"))
        postgres = servers.enter_context(Postgres(tmp_path))
        name = servers.enter_context(Forwarder(tmp_path, old.port))
        environment = {
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "PORT": str(port),
            "TMPDIR": str(tmp_path),
            "SECRET_KEY": "0123456789abcdef" * 4,
            "DEBUG": "false",
            "HTTPS": "false",
            "ALLOWED_HOSTS": "*",
            "DATABASE_URL": postgres.url(),
            "REDIS_URL": f"redis://127.0.0.1:{name.port}/0",
            "WEB_CONCURRENCY": "1",
        }
        manage = ["python", "manage.py"]
        for command in (["collectstatic", "--no-input"], ["migrate"]):
            subprocess.run(
                [bin_folder / "python", "manage.py", *command],
                cwd=site,
                env=environment,
                check=True,
                capture_output=True,
            )
        web = Process(["gunicorn", "config.wsgi"], tmp_path / "web.log", environment, site)
        clock = Process([*manage, "clock"], tmp_path / "clock.log", environment, site)
        worker = Process([*manage, "rqworker"], tmp_path / "worker.log", environment, site)
        monkeypatch.setenv("PATH", environment["PATH"])
        with web, clock, worker:
            visitor = Visitor(f"http://127.0.0.1:{port}")
            wait_for(lambda: visitor.get("/readyz").status == 200, 120, "web")
            heartbeat = tmp_path / "clock-heartbeat"
            wait_for(heartbeat.exists, 120, "the clock")
            yield old, new, postgres, name, visitor, heartbeat


def beats(heartbeat):
    """Return whether the clock's heartbeat goes on."""
    before = heartbeat.stat().st_mtime
    return wait_for(lambda: heartbeat.stat().st_mtime > before, SECONDS, "the clock's heartbeat")


def stands_still(heartbeat):
    """Return whether the clock's heartbeat has stopped: two ticks pass without one."""
    time.sleep(6)  # a tick that had already started
    before = heartbeat.stat().st_mtime
    time.sleep(11)
    return heartbeat.stat().st_mtime == before


@pytest.mark.slow
def test_a_redis_that_becomes_a_replica_is_replaced_by_the_one_in_the_url(stack):
    old, new, _, name, visitor, heartbeat = stack
    with redis_client.Redis(port=old.port) as client:
        client.replicaof("127.0.0.1", new.port)  # the name does not point to the new one yet
    wait_for(lambda: visitor.get("/readyz").status == 503, SECONDS, "/readyz to fail")
    assert "redis" in visitor.get("/readyz").text
    assert stands_still(heartbeat)
    name.lead_to(new.port)
    wait_for(lambda: visitor.get("/readyz").status == 200, SECONDS, "web to recover")
    assert beats(heartbeat)
    visitor.generate_in_background()
    wait_for(visitor.tokens, SECONDS, "the worker to recover")


@pytest.mark.slow
def test_a_postgres_that_becomes_read_only_is_reported_and_replaced(stack):
    _, _, postgres, _, visitor, heartbeat = stack

    def execute(statement):
        with closing(psycopg2.connect(postgres.url())) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)

    visitor.generate()
    execute("ALTER SYSTEM SET default_transaction_read_only = on")
    execute("SELECT pg_reload_conf()")
    wait_for(lambda: visitor.get("/readyz").status == 503, SECONDS, "/readyz to fail")
    assert visitor.post("/generate/").status == 503
    assert stands_still(heartbeat)
    execute("ALTER SYSTEM RESET default_transaction_read_only")
    execute("SELECT pg_reload_conf()")
    wait_for(lambda: visitor.get("/readyz").status == 200, SECONDS, "web to recover")
    visitor.generate()
    assert beats(heartbeat)
