"""The site in production on your own server, in Docker, and visitors who put load on it."""

import random
import re
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from support.docker import ENVIRONMENT, Project, docker
from support.http import Visitor
from support.processes import free_port, wait_for

SITE = {"web-a", "web-b", "worker", "clock"}
SERVICES = SITE | {"caddy", "db", "redis"}

# A loopback address, short jobs, and a health check that also works in an image without wget.
OVERRIDE = """
services:
  caddy:
    ports: !override ["127.0.0.1:${HTTP_PORT}:80", "127.0.0.1:${HTTPS_PORT}:443"]
    healthcheck:
      test: wget -q --spider http://127.0.0.1:2019/config/ || bash -c '< /dev/tcp/127.0.0.1/2019'
  web-a: &web
    environment:
      TOKEN_RATE: "1000000"
  web-b: *web
  worker:
    environment:
      TOKEN_WORK_SECONDS: "0.05"
"""


class Production(Project):
    """A baked site in production on this machine, as `make deploy` puts it there."""

    def __init__(self, bake, files="deploy/compose.yaml", domain="localhost"):
        super().__init__(bake)
        self.name += "-production"
        self.http_port = free_port()
        self.port = free_port()
        (self.site / "test.yaml").write_text(OVERRIDE)
        with (self.site / ".env").open("a") as env:
            env.write(
                f"COMPOSE_FILE={files}:test.yaml\nDOMAIN={domain}\n"
                f"HTTP_PORT={self.http_port}\nHTTPS_PORT={self.port}\n"
            )
        # As in a clone under a strict umask.
        subprocess.run(["chmod", "-R", "go=", self.site], check=True)

    def make(self, *arguments, check=True):
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.site,
            env=ENVIRONMENT | {"LOG_LEVEL": "nonsense"},  # .env counts, not what a shell exports
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout[-5000:]
        return done

    def deploy(self, **options):
        done = self.make("deploy", **options)
        # No -k: the certificate is verified with the root of Caddy's own authority.
        root = "/data/caddy/pki/authorities/local/root.crt"
        self.context = ssl.create_default_context(cadata=self.exec("caddy", "cat", root))
        return done

    def down(self):
        self.compose("down", "--volumes", "--remove-orphans")
        # By name: another site's image may have the same id.
        images = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", self.name).split()
        if images:
            docker("image", "rm", "--force", *images, check=False)

    @property
    def live(self):
        """The name of the live release."""
        return (self.site / "deploy/.env").read_text().strip().removeprefix("RELEASE=")

    @property
    def image(self):
        return f"{self.name}:live"

    def releases(self):
        """Return the tags of the images, newest first."""
        tags = docker("image", "ls", "--format", "{{.Tag}}", self.name).split()
        return sorted(set(tags) - {"live"}, reverse=True)

    def sql(self, statement, database="site"):
        """Run SQL as Postgres's superuser; return the unformatted output."""
        options = ["--username=postgres", "--tuples-only", "--no-align", "--command", statement]
        return self.exec("db", "psql", *options, database)

    def visitor(self, keep_alive=True):
        """Return a visitor over HTTPS who verifies the certificate."""
        return Visitor(f"https://localhost:{self.port}", self.context, keep_alive)

    def ready(self):
        return self.visitor().get("/readyz").status == 200

    def container(self, service):
        return self.compose("ps", "--quiet", service)

    def containers(self):
        return {service: self.container(service) for service in self.states()}

    def shell(self, code):
        return self.exec("web-a", "python", "manage.py", "shell", "--verbosity", "0", "-c", code)

    def troubles(self):
        """Return the log lines of Caddy and the site about failed requests and health checks."""
        logs = self.compose("logs", "--no-color", "--timestamps", "caddy", "web-a", "web-b")
        return "\n".join(re.findall(r".*(?:\tERROR\t|status=5|health|\"error\").*", logs))

    def pending(self):
        return int(self.shell("print(Token.objects.pending().count())"))


@contextmanager
def load(production, record_property, visitors=6):
    """Visitors who keep pressing the buttons, half of them over a persistent connection.

    At the end no request has failed, and every visitor has all the tokens they asked for.
    """
    stop = threading.Event()
    failures, accepted, durations = [], {}, []

    def ask(keep_alive):
        while not stop.is_set():
            visitor = production.visitor(keep_alive)
            accepted[visitor] = 0
            for _ in range(4):  # each visitor has a limit
                rarely = random.random() < 0.1
                press = visitor.generate_in_background if rarely else visitor.generate
                stop.wait(0.1)
                started = time.monotonic()
                try:
                    press()
                    accepted[visitor] += 1
                except Exception as error:
                    failures.append(f"{time.strftime('%X')} keep_alive={keep_alive} {error!r}")
                durations.append(time.monotonic() - started)

    threads = [threading.Thread(target=ask, args=(n % 2 == 0,)) for n in range(visitors)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(durations) > 50, what="the load")
        yield
        reached = len(durations)
        wait_for(lambda: len(durations) > reached + 50, what="the load afterwards")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    record_property(
        "load", f"{2 * len(durations)} requests, {len(failures)} failed, "
        f"slowest pair {max(durations):.1f} s, {len(accepted)} visitors",
    )  # fmt: skip
    assert failures == [], production.troubles()
    wait_for(lambda: production.pending() == 0, 180, what="the jobs")
    for visitor, count in accepted.items():
        visitor.close()  # Caddy may have done so, in minutes without a request
        assert len(visitor.tokens()) == count


@pytest.fixture(scope="session")
def production(engine, bake_session):
    """The site in production, behind HTTPS."""
    production = Production(bake_session)
    try:
        production.deploy()
        yield production
    finally:
        production.down()
