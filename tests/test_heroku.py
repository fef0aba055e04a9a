"""Heroku, played on this machine: its build, its release phase, its dynos and its router."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import jsonschema
import psycopg2
import pytest
import redis as redis_client
from support.http import Visitor
from support.processes import Process, find_program, free_port, wait_for
from support.procfile import read_procfile
from support.pythons import site_environment
from support.servers import Postgres, Redis

HOST = "my-site-0123456789ab.herokuapp.com"
SECRET_KEY = "0123456789abcdef" * 4
YEAR = 60 * 60 * 24 * 365
PLAN_LIMIT = 20  # connections, of heroku-postgresql:essential-0 and of heroku-redis:mini


# --- The platform ----------------------------------------------------------------------------


def make_certificate(folder):
    """Write server.crt, signed by itself as at Heroku, and server.key into the folder."""
    subprocess.run(
        [find_program("openssl"), "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=nobody",
         "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-keyout", folder / "server.key", "-out", folder / "server.crt"],
        check=True,
        capture_output=True,
    )  # fmt: skip


class TLSRedis(Redis):
    """Heroku Key-Value Store: TLS only; it closes idle connections, much sooner here."""

    def __init__(self, folder):
        make_certificate(folder)
        super().__init__(folder, "--tls-cert-file", "server.crt", "--tls-key-file", "server.key")
        self.command += ["--tls-ca-cert-file", "server.crt", "--tls-auth-clients", "no"]
        self.command += ["--port", "0", "--tls-port", str(self.port), "--timeout", "3"]

    @property
    def url(self):
        return f"rediss://:@127.0.0.1:{self.port}"


class TLSPostgres(Postgres):
    """Heroku Postgres: nobody gets in without TLS. It logs each connection, to be counted."""

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
        """Return how many connections to the database there were at the same time, at most."""
        lines = re.findall(
            rf"(connection authorized|disconnection): .*\bdatabase={database} ", self.output
        )
        return max(itertools.accumulate(1 if "auth" in line else -1 for line in lines), default=0)


class Slug:
    """What Heroku makes of a push: the tree as Git has it, and the packages by plain pip."""

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
        """Return all that a process sees: its dyno's variables and the app's config vars."""
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
        """Run a command to its end, as the build, the release phase and `heroku run` do."""
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
    """A line of the Procfile, run by honcho, which stands for Heroku's own first process."""

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
        """Return the session in which honcho has started the line: a grandchild's."""
        table = subprocess.check_output(["ps", "-eo", "pid=,ppid=,sid="], text=True)
        rows = [tuple(map(int, line.split())) for line in table.splitlines()]
        family = known = {self.pid}
        while known:
            known = {pid for pid, parent, _ in rows if parent in known}
            family |= known
        sessions = {session for pid, _, session in rows if pid in family} - {self.pid}
        return next(iter(sessions), None)

    def processes(self):
        """Return the ids of all that runs in the dyno."""
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
    """A visitor whose requests come by way of Heroku's router."""

    def __init__(self, port, client="192.0.2.1"):
        super().__init__(f"http://127.0.0.1:{port}")
        self.port = port
        self.client = client

    def headers(self, host=HOST, https=True, request_id=None, encoding="identity"):
        """Return what the router adds, and the browser's own."""
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
    """An app with its add-ons and config vars, released; `with` runs a formation of it."""

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
        """Start these dynos, all by default; yield them by name once they are ready."""
        names = names or ("web", "worker", "clock")
        with contextlib.ExitStack() as stack:
            config = self.config | config
            dynos = {name: stack.enter_context(Dyno(self.slug, name, config)) for name in names}
            if "web" in dynos:
                port = int(dynos["web"].environment["PORT"])
                wait_for(lambda: Browser(port).get("/readyz").status == 200, 120, "web")
            if "worker" in dynos:
                output = dynos["worker"]
                wait_for(lambda: "Listening on default" in output.output, 120, "worker")
            yield dynos


def port_of(dynos):
    return int(dynos["web"].environment["PORT"])


def address_of(dynos):
    return f"http://127.0.0.1:{port_of(dynos)}"


@pytest.fixture(scope="module")
def slug(site, variant, tmp_path_factory):
    """The slug of the site, built as a first push is: with no config var at all."""
    slug = Slug(site, variant, tmp_path_factory.mktemp("slug") / "app")
    done = slug.run("python manage.py collectstatic --noinput")
    assert done.returncode == 0, done.stderr
    return slug


@pytest.fixture(scope="module")
def tls_postgres(tmp_path_factory):
    with TLSPostgres(tmp_path_factory.mktemp("tls-postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory):
    with TLSRedis(tmp_path_factory.mktemp("tls-redis")) as server:
        yield server


@pytest.fixture(scope="module")
def app(slug, tls_postgres, tls_redis):
    app = App(slug, tls_postgres, tls_redis, "app")
    app.release()
    return app


@pytest.fixture(scope="module")
def dynos(app):
    with app.formation() as dynos:
        yield dynos


@pytest.fixture
def browser(dynos):
    return Browser(port_of(dynos))


# --- Build -----------------------------------------------------------------------------------


def test_a_first_push_builds_without_any_config(slug):
    assert (slug.folder / "staticfiles" / "staticfiles.json").exists()


def test_what_is_pushed_is_what_the_buildpack_expects(slug):
    names = {path.name for path in slug.folder.iterdir()}
    assert "manage.py" in names
    # More than one file of a package manager, or a virtual environment, stops the build.
    assert {"requirements.txt"} == names & {
        "requirements.txt", "Pipfile", "Pipfile.lock", "poetry.lock", "uv.lock", "pylock.toml"
    }  # fmt: skip
    assert not names & {"runtime.txt", ".venv", "venv", ".env"}
    assert re.fullmatch(rb"3\.\d+\n", (slug.folder / ".python-version").read_bytes())
    assert set(slug.procfile) == {"release", "web", "worker", "clock"}


# The part of Heroku's schema of app.json that is in its documentation.
ENV = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "description": {"type": "string"},
                    "value": {"type": "string"},
                    "required": {"type": "boolean"},
                    "generator": {"const": "secret"},
                },
            },
        ]
    },
}
ADDONS = {
    "type": "array",
    "items": {"type": "string", "pattern": "^[a-z][a-z-]*(:[a-z0-9-]+)?$"},
}
FORMATION = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["quantity"],
        "properties": {
            "quantity": {"type": "integer", "minimum": 0},
            "size": {"enum": ["eco", "basic", "standard-1x", "standard-2x"]},
        },
    },
}
ENVIRONMENT = {
    "addons": ADDONS,
    "env": ENV,
    "formation": FORMATION,
    "scripts": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {"type": "string"}
            for name in ("postdeploy", "pr-predestroy", "test-setup", "test")
        },
    },
}
APP_JSON = {
    "type": "object",
    "additionalProperties": False,
    "properties": ENVIRONMENT
    | {
        "name": {"type": "string", "maxLength": 30},
        "description": {"type": "string", "maxLength": 140},
        "keywords": {"type": "array", "items": {"type": "string"}},
        "stack": {"enum": ["heroku-24", "heroku-26"]},
        "environments": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": ENVIRONMENT,
                }
                for name in ("review", "test")
            },
        },
    },
}


@pytest.mark.parametrize("answers", [{}, {"project_name": "N" * 100, "description": "D" * 200}])
def test_app_json_is_valid(answers, bake):
    site = bake(project_slug="my_site", create_git_repo=False, **answers)
    manifest = json.loads((site / "app.json").read_text())
    jsonschema.validate(manifest, APP_JSON)
    assert set(manifest["formation"]) == set(read_procfile(site)) - {"release"}


@pytest.mark.slow
def test_heroku_ci_passes_on_servers_in_the_dyno(slug, site, variant, postgres, redis):
    scripts = json.loads((slug.folder / "app.json").read_text())["environments"]["test"]["scripts"]
    assert scripts["test-setup"] == "pip install --requirement requirements-dev.txt"
    binaries = site_environment(site, variant)
    environment = slug.environment(
        "test.1",
        CI="true",
        SECRET_KEY=SECRET_KEY,
        DATABASE_URL=postgres.url(f"ci_{variant.replace('.', '_')}"),
        REDIS_URL=redis.url,
    )
    environment["PATH"] = f"{binaries}:{environment['PATH']}"
    done = slug.run(scripts["test"], **environment)
    assert done.returncode == 0, done.stdout[-5000:]


# --- Release ---------------------------------------------------------------------------------


def test_a_release_names_each_missing_thing_with_the_command_that_sets_it(slug):
    done = slug.release()
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("?: ")]
    assert sorted(re.sub(r"^\?: \(config.E002\) ", "", line) for line in lines) == [
        "DATABASE_URL is not set. On Heroku: heroku addons:create heroku-postgresql:essential-0",
        "REDIS_URL is not set. On Heroku: heroku addons:create heroku-redis:mini",
        'SECRET_KEY is not set. On Heroku: heroku config:set SECRET_KEY="$(openssl rand -hex 32)"',
    ]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "SECRET_KEY"])
def test_no_dyno_runs_without_what_is_missing(app, name):
    config = {variable: value for variable, value in app.config.items() if variable != name}
    for process in ("web", "worker", "clock"):
        environment = app.slug.environment(f"{process}.1", **config)
        done = app.slug.run(f"timeout 20 {app.slug.procfile[process]}", **environment)
        assert done.returncode not in (0, 124)
        assert f"{name} is not set. On Heroku: heroku " in done.stderr


def test_a_release_may_run_again(app):
    assert "No migrations to apply" in app.release()


def test_a_release_that_cannot_migrate_is_stopped(app):
    url = app.config["DATABASE_URL"].replace("/app", "/no_such_database")
    assert app.slug.release(**app.config | {"DATABASE_URL": url}).returncode != 0


# --- The router ------------------------------------------------------------------------------


def test_http_is_redirected_to_https_once(browser):
    response = browser.get("/admin/?a=b", https=False)
    assert response.status == 301
    assert response.headers["Location"] == f"https://{HOST}/admin/?a=b"
    assert browser.get("/").status == 200


@pytest.mark.parametrize("host", ["evil.example", "herokuapp.com.evil.example", "127.0.0.1", "["])
def test_a_foreign_host_gets_400(browser, host):
    response = browser.get("/", host=host)
    assert response.status == 400
    assert "Traceback" not in response.text


def test_the_request_id_is_in_the_access_log_and_in_djangos_lines(browser, dynos):
    request_id = str(uuid4())
    response = browser.get("/nothing-here", request_id=request_id)
    assert response.headers["X-Request-ID"] == request_id
    web = dynos["web"]
    lines = wait_for(
        lambda: (
            len(found := [line for line in web.output.splitlines() if request_id in line]) > 1
            and found
        )
    )
    (access,) = (line for line in lines if "status=404" in line)
    assert "method=GET path=/nothing-here " in access
    assert any("logger=django.request" in line and "Not Found" in line for line in lines)


def test_nobody_can_forge_a_line_of_the_log(browser, dynos):
    browser.get("/%0d%0aforged%0astatus=200", request_id="x" * 30 + "%0aforged")
    browser.get("/healthz")
    wait_for(lambda: "path=/%0d%0aforged" in dynos["web"].output)
    assert not re.search(r"^(\S+ \S+ +\| )?(forged|status=200)", dynos["web"].output, re.M)


def test_a_job_runs_and_the_servers_are_reached_by_tls_alone(browser, dynos, tls_postgres):
    browser.generate_in_background()
    wait_for(browser.tokens, what="the token")
    assert browser.get("/readyz").status == 200
    with tls_postgres.cursor("app") as cursor:
        cursor.execute("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                       " WHERE backend_type = 'client backend'")  # fmt: skip
        assert cursor.fetchone() == (True,)


@pytest.mark.slow
def test_connections_that_redis_closed_for_being_idle_are_opened_again(browser, dynos, tls_redis):
    server = redis_client.from_url(tls_redis.url, ssl_cert_reqs=None)
    seen = len(dynos["web"].output)
    browser.generate_in_background()
    wait_for(browser.tokens)
    # What stays are the worker, blocked and subscribed, the clock, which ticks, and we.
    wait_for(lambda: server.info("clients")["connected_clients"] <= 4)
    browser.generate_in_background()
    wait_for(lambda: len(browser.tokens()) == 2)
    assert "level=ERROR" not in dynos["web"].output[seen:]
    assert "failed" not in dynos["clock"].output


def test_the_clock_runs_without_complaint(dynos):
    assert not re.search("failed|Traceback", dynos["clock"].output)


# --- Security, from outside ------------------------------------------------------------------

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}

HEADERS = {
    "Strict-Transport-Security": f"max-age={YEAR}; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/admin/login/", 200), ("/nothing-here", 404), ("/generate/", 405)],
)
def test_every_answer_has_the_headers(browser, path, status):
    response = browser.get(path)
    assert response.status == status
    for name, value in HEADERS.items():
        assert response.headers.get_all(name) == [value]
    (policy,) = response.headers.get_all("Content-Security-Policy")
    assert {part.strip() for part in policy.split(";")} == POLICY


@pytest.mark.parametrize("encoding", ["br", "gzip", "identity"])
def test_static_files_have_them_too_and_are_small_and_cached_for_good(browser, encoding):
    path = re.search(r'href="(/static/[^"]+\.css)"', browser.get().text)[1]
    headers = browser.get(path, encoding=encoding).headers
    for name in ("Strict-Transport-Security", "X-Content-Type-Options"):
        assert headers[name] == HEADERS[name]
    assert headers["Cache-Control"] == f"max-age={10 * YEAR}, public, immutable"
    assert headers["Vary"] == "Accept-Encoding"
    assert headers.get("Content-Encoding", "identity") == encoding
    assert int(headers["Content-Length"]) < (5_000 if encoding == "identity" else 1_500)


def test_no_answer_tells_a_version(browser):
    for path in ("/", "/nothing-here", "/healthz"):
        response = browser.get(path)
        assert response.headers["Server"] == "gunicorn"
        assert "X-Powered-By" not in response.headers
    with socket.create_connection(("127.0.0.1", browser.port), 5) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = connection.recv(4096).decode()
    assert "400 Bad Request" in answer
    assert not re.search(r"\d+\.\d+\.\d+|Traceback|gunicorn/", answer)


def test_cookies_are_for_this_host_https_and_no_script(browser):
    browser.generate()
    browser = Browser(browser.port)
    response = browser.get()
    response = browser.post("/generate/")
    (visitor,) = (c for name, c in response.cookies.items() if name == "__Host-visitor")
    assert visitor["secure"] and visitor["httponly"]
    assert (visitor["path"], visitor["domain"], visitor["samesite"]) == ("/", "", "Lax")
    csrf = Browser(browser.port).get().cookies["__Host-csrftoken"]
    assert csrf["secure"] and csrf["samesite"] == "Lax"
    assert (csrf["path"], csrf["domain"]) == ("/", "")


POSTS = ["/generate/", "/generate-in-background/", "/retry/", "/delete/", "/delete-all/",
         "/admin/login/", "/admin/logout/"]  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
def test_nothing_is_posted_without_csrf(browser, path):
    browser.generate()
    assert browser.request("POST", path, "token=1").status == 403
    forged = browser.form().replace("csrfmiddlewaretoken=", "csrfmiddlewaretoken=x")
    assert browser.request("POST", path, forged).status == 403
    assert len(browser.tokens()) == 1


def test_a_form_from_another_site_is_refused(browser):
    body = browser.form()
    origin = browser.headers
    browser.headers = lambda **router: origin(**router) | {"Origin": "https://evil.example"}
    assert browser.request("POST", "/generate/", body).status == 403


def test_a_visitor_reaches_nobody_elses_tokens(browser):
    browser.generate()
    (token,) = browser.tokens()
    (token_id,) = browser.ids()
    stranger = Browser(browser.port, "192.0.2.2")
    stranger.generate()
    assert token not in stranger.get("/").text
    assert token not in stranger.get(f"/progress/?token={token_id}").text
    for path in ("/delete/", "/retry/", "/delete-all/"):
        assert stranger.post(path, token=token_id).status in (302, 404)
    stranger.cookies["__Host-visitor"] = browser.cookies["__Host-visitor"][:-1] + "_"
    assert token not in stranger.get("/").text
    assert browser.tokens() == [token]
    assert "no-store" in browser.get("/").headers["Cache-Control"]


@pytest.fixture(scope="module")
def accounts(app):
    """Make `root`, a superuser, and `clerk`, who is staff without any permission."""
    for name in ("root", "clerk"):
        app.manage(
            f"createsuperuser --noinput --username {name} --email {name}@example.org",
            DJANGO_SUPERUSER_PASSWORD=f"{name} has a passphrase",
        )
    app.manage(
        'shell -c "from django.contrib.auth.models import User;'
        "User.objects.filter(username='clerk').update(is_superuser=False)\""
    )


def log_in(browser, name, password=None):
    return browser.post(
        "/admin/login/?next=/admin/",
        page="/admin/login/",
        username=name,
        password=password or f"{name} has a passphrase",
    )


def test_the_dashboard_is_for_staff_with_the_permission(browser, accounts):
    dashboard = "/admin/django_rq/dashboard/"
    assert "/admin/login/" in browser.get(dashboard).headers["Location"]
    clerk = Browser(browser.port)
    assert log_in(clerk, "clerk").status == 302
    assert clerk.get("/admin/").status == 200
    assert clerk.get(dashboard).status == 403
    root = Browser(browser.port)
    response = log_in(root, "root")
    assert response.status == 302
    session = response.cookies["__Host-sessionid"]
    assert session["secure"] and session["httponly"]
    assert (session["path"], session["domain"], session["samesite"]) == ("/", "", "Lax")
    assert root.get(dashboard).status == 200
    browser.generate()
    assert browser.tokens()[0] not in root.get("/admin/tokens/token/").text


def test_guessing_passwords_ends_after_a_few(browser, accounts):
    # An address that no other run of this test has used up.
    guesser = Browser(browser.port, f"2001:db8::{secrets.token_hex(2)}")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = pool.map(
            lambda i: log_in(Browser(browser.port, guesser.client), "root", f"wrong {i}").text,
            range(12),
        )
        refused = [text for text in texts if "Too many attempts" in text]
    assert len(refused) == 12 - 5
    assert "Too many attempts" in log_in(guesser, "root").text
    assert log_in(Browser(browser.port, "198.51.100.8"), "root").status == 302


def test_a_new_secret_key_keeps_the_tokens_while_the_old_one_is_a_fallback(app, dynos, browser):
    browser.generate()
    tokens = browser.tokens()
    rotated = {"SECRET_KEY": "fedcba9876543210" * 4}
    with app.formation("web", **rotated, SECRET_KEY_FALLBACKS=SECRET_KEY) as new:
        browser.address = address_of(new)
        assert browser.tokens() == tokens
    with app.formation("web", **rotated) as new:
        browser.address = address_of(new)
        assert browser.tokens() == []


# --- Connections -----------------------------------------------------------------------------


class Load:
    """Visitors who ask, all the time, for what takes Postgres and Redis. `wrong` should be 0."""

    def __init__(self, *ports, visitors=16):
        self.ports = ports
        self.visitors = visitors
        self.stopped = threading.Event()
        self.answers = self.wrong = 0

    def ask(self, port):
        browser = Browser(port)
        while not self.stopped.is_set():
            self.wrong += browser.get("/readyz").status != 200
            self.answers += 1

    def __enter__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(self.visitors * len(self.ports))
        self.asking = [
            self.pool.submit(self.ask, port) for port in self.ports for _ in range(self.visitors)
        ]
        return self

    def __exit__(self, *exc):
        self.stopped.set()
        self.pool.shutdown()
        for future in self.asking:
            future.result()


@pytest.mark.slow
def test_a_deploy_under_full_load_stays_within_the_connections_of_the_plans(
    slug, tls_postgres, tmp_path
):
    """The formation, then the release of the next deploy, then both formations at once."""
    # One more for who counts; Redis turns away whoever comes then.
    with Redis(tmp_path, "--maxclients", str(PLAN_LIMIT + 1)) as redis:
        server = redis_client.from_url(redis.url)
        app = App(slug, tls_postgres, redis, "counted")
        app.release()

        def work(port):
            peak = 0
            visitors = [Browser(port) for _ in range(3)]
            with Load(port) as load:
                for visitor in visitors * 2:
                    visitor.generate_in_background()
                while not all(len(visitor.tokens()) >= 2 for visitor in visitors):
                    peak = max(peak, server.info("clients")["connected_clients"] - 1)
            assert load.answers > 100
            assert load.wrong == 0
            return peak

        with app.formation() as old:
            alone = work(port_of(old)), tls_postgres.peak("counted")
            app.release()
            with app.formation() as new, Load(port_of(old)):
                both = work(port_of(new)), tls_postgres.peak("counted")
        print(f"Redis, Postgres: {alone} by the formation, {both} in a deploy")
        # What README.md counts.
        assert alone[0] <= 10
        assert alone[1] <= 8 + 1  # that of a job that has just ended
        assert max(both) <= PLAN_LIMIT
        assert server.info("stats")["rejected_connections"] == 0


# --- Shutdown --------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_to_all_at_once_loses_no_request_and_no_job(app, tls_postgres):
    """As in a deploy: requests are half-way, one job runs, others wait."""
    with app.formation() as dynos:
        visitors = [Browser(port_of(dynos)) for _ in range(2)]
        for visitor in visitors * 4:
            visitor.generate_in_background()
        browsers = [Browser(port_of(dynos)) for _ in range(12)]
        posting = []
        # Their forms first: a request that is half-way occupies one of the six threads.
        for visitor, body in [(browser, browser.form().encode()) for browser in browsers]:
            connection = visitor.connect()
            connection.putrequest("POST", "/generate/", skip_host=True)
            for name, value in visitor.headers().items():
                connection.putheader(name, value)
            connection.putheader("Content-Type", "application/x-www-form-urlencoded")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:10])
            posting.append((connection, body[10:]))
        wait_for(lambda: any("Running" in visitor.page() for visitor in visitors))

        start = time.monotonic()
        for dyno in dynos.values():
            dyno.shut_down()
        wait_for(lambda: "Handling signal: term" in dynos["web"].output)
        for connection, rest in posting:
            connection.send(rest)
        for connection, _ in posting:
            assert connection.getresponse().status == 302
        for dyno in dynos.values():
            wait_for(lambda dyno=dyno: not dyno.processes(), what=f"the end of {dyno.name}")
        took = time.monotonic() - start
        print(f"gone after {took:.1f} s")
        assert took < 30
        assert "Traceback" not in dynos["web"].output + dynos["clock"].output

    with app.formation() as dynos:
        for visitor in visitors:
            visitor.address = address_of(dynos)
            wait_for(lambda visitor=visitor: len(visitor.tokens()) == 4, 150, "the tokens")
