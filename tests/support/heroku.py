"""An imitation of Heroku: its build, its release phase, its dynos and its router."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest

from support.http import Visitor
from support.processes import Process, find_program, free_port, wait_for
from support.procfile import read_procfile
from support.pythons import site_environment
from support.servers import Postgres, Redis

HOST = "my-site-0123456789ab.herokuapp.com"


SECRET_KEY = "0123456789abcdef" * 4


def make_certificate(folder):
    """Write server.crt, self-signed as on Heroku, and server.key into the folder."""
    subprocess.run(
        [find_program("openssl"), "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=nobody",
         "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-keyout", folder / "server.key", "-out", folder / "server.crt"],
        check=True,
        capture_output=True,
    )  # fmt: skip


class TLSRedis(Redis):
    """Heroku Key-Value Store: TLS only. It closes idle connections, here much sooner."""

    def __init__(self, folder):
        make_certificate(folder)
        super().__init__(folder, "--tls-cert-file", "server.crt", "--tls-key-file", "server.key")
        self.command += ["--tls-ca-cert-file", "server.crt", "--tls-auth-clients", "no"]
        self.command += ["--port", "0", "--tls-port", str(self.port), "--timeout", "3"]

    @property
    def url(self):
        return f"rediss://:@127.0.0.1:{self.port}"


class TLSPostgres(Postgres):
    """Heroku Postgres: TLS only. It logs each connection, so that tests can count them."""

    def __init__(self, folder):
        super().__init__(folder, "-cssl=on", "-clog_connections=on", "-clog_disconnections=on")

    def create_data(self):
        super().create_data()
        make_certificate(self.data)
        if self.options["user"]:
            shutil.chown(self.data / "server.key", self.options["user"])
        (self.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")

    @contextlib.contextmanager
    def cursor(self, database="postgres"):
        connection = psycopg2.connect(self.url(database), sslmode="require")
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            yield cursor

    def peak(self, database):
        """Return the largest number of simultaneous connections to the database."""
        lines = re.findall(
            rf"(connection authorized|disconnection): .*\bdatabase={database} ", self.output
        )
        return max(itertools.accumulate(1 if "auth" in line else -1 for line in lines), default=0)


class Slug:
    """What Heroku builds from a push: the files in Git, and packages installed by plain pip."""

    def __init__(self, site, django_version, folder):
        self.folder = folder
        self.log = folder.parent / f"{folder.name}.log"
        archive = subprocess.run(
            ["git", "archive", "HEAD"], cwd=site, check=True, capture_output=True
        ).stdout
        folder.mkdir()
        subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
        self.bin = site_environment(folder, django_version, "requirements.txt", plain_pip=True)
        self.procfile = read_procfile(folder)

    def environment(self, dyno, **config):
        """Return a process's environment: its dyno's variables and the app's config vars."""
        return {
            "HOME": str(self.folder),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "PYTHONUNBUFFERED": "1",
            "DYNO": dyno,
            "PORT": str(free_port()),
            "WEB_CONCURRENCY": "2",
            "FORWARDED_ALLOW_IPS": "*",
            "GUNICORN_CMD_ARGS": "--access-logfile -",
        } | config

    def run(self, command, **environment):
        """Run a command until it ends, as the build, the release phase and `heroku run` do."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={"PATH": f"{self.bin}:/usr/bin:/bin"} | environment,
            capture_output=True,
            text=True,
        )

    def release(self, **config):
        return self.run(self.procfile["release"], **self.environment("release.1", **config))


class Dyno(Process):
    """A line of the Procfile, run by honcho in place of Heroku's own first process."""

    def __init__(self, slug, name, config):
        self.environment = slug.environment(f"{name}.1", **config)
        honcho = Path(sys.executable).with_name("honcho")
        command = [honcho, "--procfile", "Procfile", "--env", "/dev/null", "start", name]
        self.name = name
        log = slug.folder.parent / f"{slug.folder.name}-{name}-{uuid4().hex[:4]}.log"
        super().__init__(command, log, self.environment, slug.folder)

    def start(self):
        super().start()
        self.session = wait_for(self.find_session, what=self.log)
        return self

    def find_session(self):
        """Return the session in which honcho started the line: that of a grandchild."""
        table = subprocess.check_output(["ps", "-eo", "pid=,ppid=,sid="], text=True)
        rows = [tuple(map(int, line.split())) for line in table.splitlines()]
        family = known = {self.pid}
        while known:
            known = {pid for pid, parent, _ in rows if parent in known}
            family |= known
        sessions = {session for pid, _, session in rows if pid in family} - {self.pid}
        return next(iter(sessions), None)

    def processes(self):
        """Return the ids of all processes in the dyno."""
        output = subprocess.run(
            ["ps", "-o", "pid=", "-s", str(self.session)], capture_output=True, text=True
        ).stdout
        return [int(pid) for pid in output.split()]

    def shut_down(self):
        """Send SIGTERM to every process at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def __exit__(self, *exc):
        self.shut_down()
        wait_for(lambda: not self.processes(), what=f"the end of {self.name}")
        super().__exit__(*exc)


class Browser(Visitor):
    """A visitor whose requests pass Heroku's router."""

    def __init__(self, port, client="192.0.2.1"):
        super().__init__(f"http://127.0.0.1:{port}")
        self.port = port
        self.client = client

    def headers(self, host=HOST, https=True, request_id=None, encoding="identity"):
        """Return the browser's headers and those that the router adds."""
        scheme = "https" if https else "http"
        router = {
            "Host": host,
            "Accept-Encoding": encoding,
            "Origin": f"{scheme}://{host}",
            "X-Forwarded-For": f"10.9.8.7, {self.client}",
            "X-Forwarded-Port": "443" if https else "80",
            "X-Forwarded-Proto": scheme,
            "X-Request-ID": request_id or str(uuid4()),
            "X-Request-Start": str(int(time.time() * 1000)),
            "Via": "1.1 heroku-router",
        }
        return super().headers(**router)


class App:
    """A released app with its add-ons and config vars; `formation` runs its dynos."""

    def __init__(self, slug, postgres, redis, database):
        self.slug = slug
        with postgres.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {database}")
            cursor.execute(f"CREATE DATABASE {database}")
        self.config = {
            "SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": postgres.url(database),
            "REDIS_URL": redis.url,
        }

    def manage(self, command, **config):
        environment = self.slug.environment("run.1", **self.config | config)
        done = self.slug.run(f"python manage.py {command}", **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def release(self, **config):
        done = self.slug.release(**self.config | config)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def formation(self, *names, **config):
        """Start these dynos, or all of them; yield them by name once they are ready."""
        names = names or ("web", "worker", "clock")
        with contextlib.ExitStack() as stack:
            config = self.config | config
            dynos = {name: stack.enter_context(Dyno(self.slug, name, config)) for name in names}
            if "web" in dynos:
                port = int(dynos["web"].environment["PORT"])
                wait_for(lambda: Browser(port).get("/readyz").status == 200, 120, "web")
            if "worker" in dynos:
                output = dynos["worker"]
                wait_for(lambda: "queues=default" in output.output, 120, "worker")
            yield dynos


def port_of(dynos):
    return int(dynos["web"].environment["PORT"])


def address_of(dynos):
    return f"http://127.0.0.1:{port_of(dynos)}"


def log_in(browser, name, password=None):
    return browser.post(
        "/admin/login/?next=/admin/",
        page="/admin/login/",
        username=name,
        password=password or f"{name} has a passphrase",
    )


@pytest.fixture(scope="session")
def slug(site, variant, tmp_path_factory):
    """The site's slug, built like a first push: without any config var."""
    slug = Slug(site, variant, tmp_path_factory.mktemp("slug") / "app")
    done = slug.run("python manage.py collectstatic --noinput")
    assert done.returncode == 0, done.stderr
    return slug


@pytest.fixture(scope="session")
def tls_postgres(tmp_path_factory):
    with TLSPostgres(tmp_path_factory.mktemp("tls-postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def tls_redis(tmp_path_factory):
    with TLSRedis(tmp_path_factory.mktemp("tls-redis")) as server:
        yield server


@pytest.fixture(scope="session")
def app(slug, tls_postgres, tls_redis):
    app = App(slug, tls_postgres, tls_redis, "app")
    app.release()
    return app


@pytest.fixture(scope="session")
def dynos(app):
    with app.formation() as dynos:
        yield dynos


@pytest.fixture
def browser(dynos):
    return Browser(port_of(dynos))


@pytest.fixture(scope="session")
def accounts(app):
    """Create `root`, a superuser, and `clerk`, who is staff without permissions."""
    for name in ("root", "clerk"):
        app.manage(
            f"createsuperuser --noinput --username {name} --email {name}@example.org",
            DJANGO_SUPERUSER_PASSWORD=f"{name} has a passphrase",
        )
    app.manage(
        'shell -c "from users.models import User;'
        "User.objects.filter(username='clerk').update(is_superuser=False)\""
    )
