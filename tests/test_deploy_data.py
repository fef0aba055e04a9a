"""Backups and restores, on Postgres and on SQLite."""

import re
import signal
import subprocess
import threading
import time

import pytest
from support.docker import ENVIRONMENT
from support.processes import Process, wait_for
from support.production import SERVICES, Production, load

pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.slow]

# Statements that make a copy of the site's database unacceptable.
FOREIGN = {
    "another site": "INSERT INTO django_migrations (app, name, applied) "
    "VALUES ('blog', '0001_initial', '2026-01-01')",
    "no site": "DROP TABLE django_migrations",
    "a part": "DROP TABLE tokens_token",
}


class Backups:
    """Backups and restores of a site, on either database."""

    def __init__(self, production):
        self.production = production
        self.folder = production.site / "backups"

    @property
    def names(self):
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def make(self, **options):
        """Return the path of a new backup, relative to the site."""
        keep = [f"KEEP={options.pop('keep')}"] if "keep" in options else []
        return re.search(r"^backups/\S+$", self.production.make("backup", *keep).stdout, re.M)[0]

    def restore(self, file, **options):
        return self.production.make("restore", f"FILE={file}", **options)


class PostgresBackups(Backups):
    def foreign(self, statement):
        """Return a backup of the site's database after a statement has changed it."""
        for command in (
            "DROP DATABASE IF EXISTS other",
            "CREATE DATABASE other TEMPLATE template0",
        ):
            self.production.sql(command, "postgres")
        copy = "pg_dump -U postgres site | psql -q -U postgres other >/dev/null"
        self.production.exec("db", "sh", "-c", copy)
        self.production.sql(statement, "other")
        path = self.production.site / "foreign"
        with path.open("wb") as file:
            dump = ["exec", "-T", "db", "pg_dump", "-U", "postgres", "--format=custom", "other"]
            subprocess.run(
                ["docker", "compose", *dump], stdout=file, check=True,
                cwd=self.production.site, env=ENVIRONMENT,
            )  # fmt: skip
        self.production.sql("DROP DATABASE other", "postgres")
        return path.name

    def databases(self):
        names = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        return set(self.production.sql(names, "postgres").split())


class SQLiteBackups(Backups):
    def foreign(self, statement):
        import sqlite3
        from contextlib import closing

        path = self.production.site / "foreign"
        path.write_bytes((self.production.site / self.make()).read_bytes())
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)
        return path.name

    def databases(self):
        files = self.production.exec("worker", "ls", "/data").split()
        return {name.partition(".")[0].replace("db", "site") for name in files}


@pytest.fixture(scope="module")
def on_sqlite(engine, bake_session):
    """The site in production on SQLite, with two domains."""
    production = Production(
        bake_session, "deploy/compose.yaml:deploy/sqlite.yaml", "localhost, site.localhost"
    )
    try:
        production.deploy()
        yield production
    finally:
        production.down()


@pytest.fixture(params=["postgres", "sqlite"])
def backups(request):
    if request.param == "postgres":
        return PostgresBackups(request.getfixturevalue("production"))
    return SQLiteBackups(request.getfixturevalue("on_sqlite"))


def test_a_backup_is_restored_and_the_restore_can_be_undone(backups):
    production = backups.production
    visitor = production.visitor(keep_alive=False).walk()
    saved = visitor.tokens()
    file = backups.make()
    assert (production.site / file).stat().st_mode & 0o777 == 0o600
    later = visitor.walk().tokens()
    assert len(later) == 4

    statuses = set()
    restored = threading.Event()

    def watch():
        while not restored.is_set():
            statuses.add(production.visitor(keep_alive=False).get("/").status)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = backups.restore(file)
    finally:
        restored.set()
        watcher.join()
    assert statuses == {200, 503}
    assert "make restore FILE=previous" in done.stdout.splitlines()[-1]
    assert visitor.tokens() == saved
    assert backups.databases() == {"site", "previous"}
    backups.restore("previous")
    assert visitor.tokens() == later
    assert backups.databases() == {"site", "previous"}
    visitor.walk()


def test_a_restore_that_is_interrupted_twice_opens_the_site_again(backups, tmp_path):
    production = backups.production
    visitor = production.visitor(keep_alive=False).walk()
    before, databases = visitor.tokens(), backups.databases()
    command = ["make", "restore", f"FILE={backups.make()}"]
    with Process(command, tmp_path / "log", ENVIRONMENT, production.site) as restore:
        wait_for(lambda: visitor.get("/").status == 503, 120, pause=0.05)
        restore.send_group(signal.SIGINT)
        # Containers that are stopping may take 40 seconds.
        wait_for(lambda: "Starting the site again" in restore.output, 120, pause=0.05)
        restore.send_group(signal.SIGINT)
        restore.wait()
        wait_for(lambda: not restore.children(), 180, what="its end")
    wait_for(production.ready)
    assert visitor.tokens() == before
    assert backups.databases() == databases
    visitor.walk()


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_backup_of_another_site_changes_nothing(backups, kind):
    visitor = backups.production.visitor(keep_alive=False).walk()
    before, databases = visitor.tokens(), backups.databases()
    done = backups.restore(backups.foreign(FOREIGN[kind]), check=False)
    assert done.returncode != 0
    assert "Not a backup of this site" in done.stdout
    assert visitor.tokens() == before
    assert backups.databases() == databases


def test_an_incomplete_backup_changes_nothing(backups):
    visitor = backups.production.visitor(keep_alive=False).walk()
    before, databases = visitor.tokens(), backups.databases()
    whole = (backups.production.site / backups.make()).read_bytes()
    half = backups.production.site / "half a backup"
    half.write_bytes(whole[: len(whole) // 2])
    assert backups.restore(half.name, check=False).returncode != 0
    assert "No such backup: make restore FILE=" in backups.restore("nothing", check=False).stdout
    assert visitor.tokens() == before
    assert backups.databases() == databases


def test_two_simultaneous_backups_both_succeed(backups):
    before = backups.names
    both = [
        subprocess.Popen(
            ["make", "backup"], cwd=backups.production.site, env=ENVIRONMENT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [backup.communicate()[0] for backup in both]
    assert [backup.returncode for backup in both] == [0, 0], outputs
    made = set(backups.names) - set(before)
    assert len(made) == 2
    newest = max(made)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ", name) for name in made)
    backups.make(keep=2)
    assert len(backups.names) == 2
    assert newest in backups.names
    # From when the machine's clock was wrong.
    (backups.production.site / "backups/2099-01-01T00-00-00Z").touch()
    assert (backups.production.site / backups.make(keep=1)).exists()
    assert "KEEP" in backups.production.make("backup", "KEEP=none", check=False).stdout


def test_a_backup_that_fails_leaves_nothing(production):
    backups = PostgresBackups(production)
    before = backups.names
    production.compose("stop", "db")
    try:
        assert production.make("backup", check=False).returncode != 0
        assert backups.names == before
    finally:
        production.compose("start", "db")
        wait_for(production.ready, 60, what="the site")


def test_watch_reports_what_needs_attention(production):
    production.make("backup")
    wait_for(lambda: production.make("watch", check=False).returncode == 0, 120, what="peace")
    production.compose("stop", "clock")
    try:
        done = production.make("watch", check=False)
        assert done.returncode != 0
        assert re.search(r"^clock Exited", done.stdout, re.M), done.stdout
        production.compose("rm", "--force", "clock")
        assert "There is no container of clock" in production.make("watch", check=False).stdout
    finally:
        production.compose("up", "--detach", "--wait", "--no-deps", "clock")


def test_watch_reports_a_domain_without_a_certificate(production):
    production.edit(".env", "DOMAIN=localhost", "DOMAIN=localhost, www.example.org")
    try:
        output = production.make("watch", check=False).stdout
    finally:
        production.edit(".env", "DOMAIN=localhost, www.example.org", "DOMAIN=localhost")
    assert "The certificate of www.example.org expires within 14 days" in output
    assert "The certificate of localhost" not in output


def test_another_machine_needs_the_secrets_and_a_backup(production):
    visitor = production.visitor(keep_alive=False).walk()
    tokens = visitor.tokens()
    file = PostgresBackups(production).make()
    production.compose("down", "--volumes")
    production.deploy()
    visitor.context = production.context  # Caddy has created a new authority
    assert visitor.tokens() == []
    done = production.make("restore", "FILE=previous", check=False)
    assert "There is no restore to undo." in done.stdout
    production.make("restore", f"FILE={file}")
    assert visitor.tokens() == tokens


def test_sqlite_handles_everybody_writing_at_once(on_sqlite, record_property):
    assert set(on_sqlite.states()) == SERVICES - {"db"}
    with load(on_sqlite, record_property, visitors=8):
        on_sqlite.edit("tokens/views.py", "from uuid", f"# {on_sqlite.name}\nfrom uuid")
        on_sqlite.deploy()
    logs = on_sqlite.compose("logs")
    assert 'outcome="done"' in logs
    assert "locked" not in logs
