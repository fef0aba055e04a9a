"""A site with all recipes, used as a visitor would, with production's processes."""

import contextlib
import html
import itertools
import os
import re
import shlex
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import brotli
import pytest
from support.commands import BIN, run
from support.http import Visitor
from support.mail import MailServer
from support.processes import Process, answers, find_program, free_port, wait_for
from support.procfile import production, read_procfile
from support.pythons import site_environment
from support.recipes import PAGE, PICTURE, RECIPES, compile_messages, put_in, upload
from support.servers import execute

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("recipes")]


class Envelopes(BaseHTTPRequestHandler):
    """Accepts error reports like Sentry; `events` has them."""

    events: ClassVar = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.events.append(brotli.decompress(body).decode())
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def reports():
    """The received error reports, and the address to send them to."""
    with ThreadingHTTPServer(("127.0.0.1", free_port()), Envelopes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Envelopes.events, f"http://key@127.0.0.1:{server.server_port}/1"
        server.shutdown()


@pytest.fixture(scope="module")
def mail_server():
    with MailServer() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The address of a bucket on an S3 server."""
    port = free_port()
    command = [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with Process(command, tmp_path_factory.mktemp("s3") / "log"):
        address = f"127.0.0.1:{port}/uploads"
        create = urllib.request.Request(f"http://{address}", method="PUT")
        wait_for(lambda: urllib.request.urlopen(create).status == 200, 60, "the S3 server")
        yield f"http://key:secret@{address}"


BROKEN = """
from django.urls import include, path

from config.compat import task


@task(retries=())
def fail(email):
    raise RuntimeError(f"broken job\\nDETAIL:  Failing row contains ({email}).")


def page(request):
    fail.enqueue("ada@example.org")
    raise RuntimeError("broken page")


urlpatterns = [path("broken/", page), path("", include("config.urls"))]
"""


@pytest.fixture(scope="module")
def cooked(bake_session):
    """A site with all recipes, and with a page and a job that fail."""
    site = put_in(bake_session(), *RECIPES)
    compile_messages(site, site_environment(site, "6.1"))
    (site / "broken").mkdir()
    (site / "broken/__init__.py").touch()
    (site / "broken/urls.py").write_text(BROKEN)
    (site / "broken/settings.py").write_text(
        'from config.settings import *\nROOT_URLCONF = "broken.urls"\n'
    )
    return site


@pytest.fixture(scope="module")
def processes(cooked, postgres, redis, reports, mail_server, bucket, tmp_path_factory):
    """A function that starts the Procfile's processes and returns the site's address."""
    bin_folder = site_environment(cooked, "6.1")
    folder = tmp_path_factory.mktemp("logs")
    commands = read_procfile(cooked)
    numbers = itertools.count(1)
    with contextlib.ExitStack() as stack:

        def start(*names, database="recipes", **variables):
            environment = production(
                bin_folder,
                DJANGO_SETTINGS_MODULE="broken.settings",
                DATABASE_URL=postgres.url(database),
                REDIS_URL=f"{redis.url[:-1]}{next(numbers)}",  # its own queue
                PORT=str(free_port()),
                EMAIL_URL=f"smtp://localhost:{mail_server.port}",
                DEFAULT_FROM_EMAIL="site@example.org",
                ADMINS="admin@example.org",
                SENTRY_DSN=reports[1],
                **variables,
            )
            python = [bin_folder / "python", "manage.py"]
            execute(postgres.url(), f"CREATE DATABASE {database}")
            direct = environment | {"DATABASE_CONNECTION_POOL_URL": ""}  # as the release phase does
            run(*python, "migrate", "--verbosity", "0", site=cooked, **direct)
            run(*python, "collectstatic", "--no-input", "-v0", site=cooked, **direct)
            for name in names:
                command = shlex.split(commands[name])
                log = folder / f"{database}-{name}.log"
                stack.enter_context(Process(command, log, env=environment, cwd=cooked))
            address = f"http://localhost:{environment['PORT']}"
            wait_for(lambda: answers(f"{address}/readyz"), 60, "the site")
            return address

        yield start


@pytest.fixture(scope="module")
def address(processes, bucket):
    """The site with all settings on, and uploads in the bucket."""
    return processes("web", "worker", "worker_low", "clock", S3_URL=bucket)


def sign_up(address, mail_server, email):
    """Return a visitor who has signed up with a link from a mail and is logged in."""
    visitor = Visitor(address)
    assert visitor.post("/accounts/sign-up/", "/accounts/sign-up/", email=email).status == 302

    def mail():
        return [message for message in mail_server.messages if message["To"] == email]

    wait_for(mail, 60, "the mail")
    link = re.search(rf"{address}(\S+)", mail()[0].get_content())[1]
    form = visitor.get(link).headers["Location"]
    passwords = dict.fromkeys(["new_password1", "new_password2"], "analytical engine")
    assert visitor.post(form, form, **passwords).status == 302
    assert email in visitor.page("/accounts/")
    return visitor


def test_visitors_sign_up_by_mail_and_log_in(address, mail_server):
    visitor = sign_up(address, mail_server, "ada@example.org")
    assert visitor.post("/accounts/logout/", "/accounts/").status == 302
    assert visitor.get("/accounts/").status == 302
    data = {"username": "ada@example.org", "password": "analytical engine"}
    assert visitor.post("/accounts/login/", "/accounts/login/", **data).status == 302
    assert visitor.get("/accounts/").status == 200
    wrong = [
        visitor.post("/accounts/login/", "/accounts/login/", **data | {"password": "wrong"}).text
        for _ in range(6)
    ]
    assert "Too many attempts" in wrong[-1]


def test_uploads_go_to_the_bucket_and_the_policy_allows_them(address, mail_server, bucket, cooked):
    visitor = sign_up(address, mail_server, "grace@example.org")
    page = upload(visitor, "holiday.png", PICTURE)
    (link,) = re.findall(r'<img src="([^"]+)" width="320"', page)
    link = html.unescape(link)
    endpoint = bucket.replace("key:secret@", "").removesuffix("/uploads")
    assert link.startswith(f"{endpoint}/uploads/pictures/")
    assert endpoint in visitor.get("/pictures/").headers["Content-Security-Policy"]
    assert urllib.request.urlopen(link).read() == PICTURE
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link.partition("?")[0])
    assert "errorlist" in upload(visitor, "holiday.png", b"<svg onload='alert(1)'/>")
    assert not (cooked / "media").exists()  # nothing is left on Heroku's disk


def test_without_a_bucket_uploads_go_to_the_folder(processes, mail_server, cooked):
    address = processes("web", "worker", database="volume")
    visitor = sign_up(address, mail_server, "joan@example.org")
    page = upload(visitor, "holiday.png", PICTURE)
    (link,) = re.findall(r'<img src="/media/(pictures/[0-9a-f-]+\.png)" width="320"', page)
    assert (cooked / "media" / link).read_bytes() == PICTURE
    assert "At most 5 MB" in upload(visitor, "large.png", PICTURE + b"\0" * (5 * 1024 * 1024))


def test_errors_of_web_and_jobs_are_reported_and_mailed(address, mail_server, reports):
    assert Visitor(address).get("/broken/?token=secret").status == 500
    events, _ = reports
    for text in ("broken page", "broken job"):
        wait_for(lambda text=text: any(text in event for event in events), 60, text)
        wait_for(
            lambda text=text: any(text in str(m) for m in mail_server.messages), 60, "the mail"
        )
    mails = [str(m) for m in mail_server.messages if m["To"] == "admin@example.org"]
    for text in [*events, *mails]:
        assert "Failing row contains (ada@example.org)" not in text
        assert "csrftoken" not in text


def test_translations_are_collected_and_compiled(cooked):
    """But not those of .venv."""
    bin_folder = site_environment(cooked, "6.1")
    (cooked / ".venv").symlink_to(bin_folder.parent)
    before = (cooked / "config/locale/de/LC_MESSAGES/django.po").read_text()
    os.utime(cooked / "requirements-dev.txt", (0, 0))
    run("make", "messages", site=cooked)
    assert (cooked / "config/locale/de/LC_MESSAGES/django.po").read_text() == before
    assert [path.parent.name for path in cooked.glob("*/locale")] == ["config"]


class PgBouncer(Process):
    """PgBouncer with the recipe's configuration, in front of the Postgres server."""

    def __init__(self, postgres):
        self.port = free_port()
        # Not in pytest's folder, which only one user can read; PgBouncer does not run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        (self.folder / "userlist.txt").write_text('"postgres" "secret"\n')
        (shown,) = re.findall(r"^```ini\n(.*?)^```", PAGE.read_text(), re.M | re.S)
        for old, new in {
            "port=5432": f"port={postgres.port}",
            "6432": str(self.port),
            "/etc/pgbouncer": str(self.folder),
        }.items():
            assert old in shown
            shown = shown.replace(old, new)
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(f"{shown}unix_socket_dir =\nadmin_users = postgres\n")
        user = "postgres" if os.getuid() == 0 else None
        for path in (self.folder, *self.folder.iterdir()):
            if user:
                shutil.chown(path, user)
        program = find_program("pgbouncer", "/usr/sbin")
        super().__init__([program, configuration], self.folder / "log", cwd="/", user=user)

    def url(self, database):
        return f"postgres://postgres:secret@127.0.0.1:{self.port}/{database}"

    def __exit__(self, *exc):
        super().__exit__(*exc)
        shutil.rmtree(self.folder)


def test_everything_goes_through_pgbouncer(processes, postgres):
    with PgBouncer(postgres) as pool:
        address = processes(
            *("web", "worker", "worker_low", "clock"),
            database="pooled",
            DATABASE_CONNECTION_POOL_URL=pool.url("pooled"),
        )
        for _ in range(3):
            Visitor(address).walk()
        clients = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'pooled'"
        ((count,),) = execute(postgres.url(), clients)
        assert 0 < count <= 10  # default_pool_size
        lists = execute(pool.url("pgbouncer"), "SHOW CLIENTS")
        assert len([row for row in lists if "pooled" in row]) >= 3  # web, worker, clock
