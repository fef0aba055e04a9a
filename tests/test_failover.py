"""Failovers: a Redis or Postgres that goes on answering, but refuses writes."""

import subprocess
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import redis as redis_client
from support.http import Visitor
from support.processes import Process, free_port, wait_for
from support.pythons import site_environment
from support.servers import Postgres, Redis, Standby, execute

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

    def __init__(self, folder, server):
        self.port = free_port()
        self.target = folder / f"target-{self.port}"
        self.lead_to(server)
        command = ["python3", "-c", self.CODE, str(self.port), str(self.target)]
        super().__init__(command, folder / f"forwarder-{self.port}.log")

    def lead_to(self, server):
        self.target.write_text(str(server.port))


@pytest.fixture
def stack(site, tmp_path, monkeypatch):
    """Start web, worker and clock, with Postgres and Redis behind names that can lead elsewhere."""
    bin_folder = site_environment(site, "6.1")
    port = free_port()
    with ExitStack() as servers:
        redis = servers.enter_context(Redis(tmp_path))
        postgres = servers.enter_context(Postgres(tmp_path))
        names = [servers.enter_context(Forwarder(tmp_path, each)) for each in (redis, postgres)]
        environment = {
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "PORT": str(port),
            "TMPDIR": str(tmp_path),
            "SECRET_KEY": "0123456789abcdef" * 4,
            "DEBUG": "false",
            "HTTPS": "false",
            "ALLOWED_HOSTS": "*",
            "DATABASE_URL": f"postgres://postgres@127.0.0.1:{names[1].port}/postgres",
            "REDIS_URL": f"redis://127.0.0.1:{names[0].port}/0",
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
            yield SimpleNamespace(
                redis=redis,
                redis_name=names[0],
                postgres=postgres,
                postgres_name=names[1],
                visitor=visitor,
                heartbeat=heartbeat,
                start=lambda kind, *arguments: servers.enter_context(kind(*arguments)),
            )


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


def recovers(stack):
    """Return whether web, clock and worker work again."""
    visitor = stack.visitor
    wait_for(lambda: visitor.get("/readyz").status == 200, SECONDS, "web to recover")
    made = len(visitor.tokens())
    visitor.generate_in_background()
    wait_for(lambda: len(visitor.tokens()) > made, SECONDS, "the worker to recover")
    return beats(stack.heartbeat)


@pytest.mark.slow
def test_a_redis_that_becomes_a_replica_is_replaced_by_the_one_in_the_url(stack, tmp_path_factory):
    new = stack.start(Redis, tmp_path_factory.mktemp("new"))
    with redis_client.Redis(port=stack.redis.port) as client:
        client.replicaof("127.0.0.1", new.port)  # the name does not point to the new one yet
    visitor = stack.visitor
    wait_for(lambda: visitor.get("/readyz").status == 503, SECONDS, "/readyz to fail")
    assert "redis" in visitor.get("/readyz").text
    assert stands_still(stack.heartbeat)
    stack.redis_name.lead_to(new)
    assert recovers(stack)


@pytest.mark.slow
def test_a_postgres_standby_is_reported_until_it_becomes_the_primary(stack, tmp_path_factory):
    visitor = stack.visitor
    visitor.generate()
    standby = stack.start(Standby, tmp_path_factory.mktemp("standby"), stack.postgres)
    stack.postgres_name.lead_to(standby)
    stack.postgres.stop()
    wait_for(lambda: visitor.get("/").status == 200, SECONDS, "web to read from the standby")
    answer = visitor.get("/readyz")
    assert (answer.status, answer.text) == (503, "no answer from: database\n")
    assert visitor.post("/generate/").status == 503
    assert stands_still(stack.heartbeat)
    execute(standby.url(), "SELECT pg_promote()")
    assert recovers(stack)


@pytest.mark.slow
def test_a_postgres_that_becomes_read_only_is_reported_until_it_takes_writes(stack):
    postgres, visitor = stack.postgres.url(), stack.visitor
    visitor.generate()
    execute(postgres, "ALTER SYSTEM SET default_transaction_read_only = on")
    execute(postgres, "SELECT pg_reload_conf()")
    wait_for(lambda: visitor.get("/readyz").status == 503, SECONDS, "/readyz to fail")
    assert visitor.post("/generate/").status == 503
    assert stands_still(stack.heartbeat)
    execute(postgres, "ALTER SYSTEM RESET default_transaction_read_only")
    execute(postgres, "SELECT pg_reload_conf()")
    assert recovers(stack)
