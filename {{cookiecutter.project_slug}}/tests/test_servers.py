"""The database and Redis: backups, and servers that no longer accept writes."""

import io
import runpy
import signal
import sqlite3
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import InternalError, OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from redis.connection import ConnectionPool
from redis.exceptions import ReadOnlyError

from config import servers, sqlite, views

pytestmark = pytest.mark.django_db

SCRIPT = Path(sqlite.__file__)


@pytest.fixture
def ignored(monkeypatch):
    """Return a list of the signals that the script would ignore."""
    ignored = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: ignored.append(arguments))
    return ignored


@pytest.fixture
def run(monkeypatch, ignored):
    """Return a function that runs the script with some input and returns its output."""

    def run(command, *arguments, given=b""):
        output = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(SCRIPT), command, *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(output))
            runpy.run_path(str(SCRIPT), run_name="__main__")
            return output.getvalue()

    return run


def execute(database, *statements):
    with closing(sqlite3.connect(database)) as connection, connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


@pytest.fixture
def database(tmp_path):
    """Return the file of a database in use, whose newest rows are still in its WAL."""
    database = tmp_path / "db 100%.sqlite3"
    execute(
        database,
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE django_migrations (name)",
        "INSERT INTO django_migrations VALUES ('0001_initial')",
        "CREATE TABLE notes (value)",
        "INSERT INTO notes VALUES (hex(randomblob(100000)))",
    )
    with closing(sqlite3.connect(database)) as reader:
        reader.execute("SELECT * FROM notes").fetchone()
        yield database


def test_a_backup_has_every_committed_row(database, tmp_path, run):
    (tmp_path / "backup").write_bytes(run("backup", database))
    notes = "SELECT * FROM notes"
    assert execute(tmp_path / "backup", notes) == execute(database, notes)
    run("check", given=(tmp_path / "backup").read_bytes())
    assert {path.name for path in tmp_path.iterdir()} <= {
        "backup", *(f"{database.name}{suffix}" for suffix in ("", "-shm", "-wal"))
    }  # fmt: skip


def test_a_copy_replaces_a_database_that_is_being_read(database, tmp_path, run):
    copy = tmp_path / "copy"
    run("copy", database, copy)
    with closing(sqlite3.connect(copy)) as reader:
        reader.execute("SELECT * FROM notes").fetchone()
        execute(database, "UPDATE notes SET value = 'new'")
        run("copy", database, copy)
        assert reader.execute("SELECT * FROM notes").fetchall() == [("new",)]


def test_two_databases_are_exchanged(database, tmp_path, run, ignored):
    other = tmp_path / "other"
    run("copy", database, other)
    execute(other, "UPDATE notes SET value = 'other'")
    execute(database, "UPDATE notes SET value = 'live'")
    run("exchange", database, other)
    notes = "SELECT * FROM notes"
    assert (execute(database, notes), execute(other, notes)) == ([("other",)], [("live",)])
    assert (signal.SIGINT, signal.SIG_IGN) in ignored
    assert not (tmp_path / "exchanged.sqlite3").exists()


def test_what_an_interrupted_exchange_left_is_not_overwritten(database, tmp_path, run):
    spare = tmp_path / "exchanged.sqlite3"
    spare.write_text("data")
    with pytest.raises(SystemExit, match=f"{spare} may be the only copy"):
        run("exchange", database, tmp_path / "other")
    assert spare.read_text() == "data"


def test_an_exchange_that_never_began_is_forgotten(database, tmp_path, run):
    (tmp_path / "exchanged.partial").write_text("half a copy")
    run("copy", database, tmp_path / "other")
    run("exchange", database, tmp_path / "other")
    assert not (tmp_path / "exchanged.partial").exists()


def test_a_missing_database_cannot_be_backed_up(tmp_path, run):
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        run("backup", tmp_path / "db.sqlite3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["half", "other", "garbage", "damaged"])
def test_an_incomplete_database_is_refused(database, run, damage):
    backup = run("backup", database)
    given = {
        "half": backup[: len(backup) // 2],
        "other": b"PGDMP" + backup[5:],
        "garbage": b"garbage" * 1000,
        "damaged": backup[:8192] + b"\xff" * 8192 + backup[16384:],
    }[damage]
    with pytest.raises(SystemExit, match=r"^This is not a complete database: "):
        run("check", given=given)


def test_a_constraint_may_use_djangos_functions(database, run):
    with sqlite.connect(database) as connection, connection:
        connection.execute("CREATE TABLE names (name CHECK (name REGEXP '^[a-z]+$'))")
        connection.execute("INSERT INTO names VALUES ('abc')")
    run("check", given=run("backup", database))


# --- Backups of another site ----------------------------------------------------------------------


def test_a_backup_of_this_site_is_accepted():
    call_command("acceptbackup")


def test_a_database_with_another_sites_migrations_is_refused():
    MigrationRecorder(connection).record_applied("blog", "0001_initial")
    with pytest.raises(CommandError, match=r"it has blog\.0001_initial\."):
        call_command("acceptbackup")


def test_a_database_without_migrations_of_this_sites_apps_is_refused():
    recorder = MigrationRecorder(connection)
    recorder.flush()
    recorder.record_applied("contenttypes", "0001_initial")
    with pytest.raises(CommandError, match="no migration of its apps"):
        call_command("acceptbackup")


def test_a_database_without_a_table_is_refused():
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_session")
    with pytest.raises(CommandError, match=r"Not a backup of this site: .*django_session"):
        call_command("acceptbackup")


# --- Servers that do not accept writes ------------------------------------------------------


class Postgres:
    """A connection to a Postgres server that says whether it is read-only."""

    vendor = "postgresql"
    closed = False

    def __init__(self, read_only):
        self.read_only = read_only

    def cursor(self):
        return nullcontext(SimpleNamespace(execute=print, fetchone=lambda: (self.read_only,)))

    def close(self):
        self.closed = True


def test_a_database_that_accepts_writes_passes(monkeypatch):
    servers.check_database()
    monkeypatch.setattr(servers, "connection", Postgres("off"))
    servers.check_database()
    assert not servers.connection.closed


def test_a_connection_to_a_replica_is_closed(monkeypatch):
    monkeypatch.setattr(servers, "connection", Postgres("on"))
    with pytest.raises(OperationalError, match="read-only"):
        servers.check_database()
    assert servers.connection.closed


@pytest.mark.parametrize("code", ["25006", "42501"])  # it is read-only, or writing is revoked
def test_a_refused_write_answers_503_and_reconnects(rf, monkeypatch, code):
    monkeypatch.setattr(servers, "connection", Postgres("on"))
    monkeypatch.setattr(SimpleError, "pgcode", code)
    try:
        error = InternalError("cannot execute INSERT in a read-only transaction")
        raise error from SimpleError()
    except InternalError:
        response = views.server_error(rf.get("/"))
    assert response.status_code == 503
    assert servers.connection.closed


class SimpleError(Exception):
    """Like psycopg2's error, as far as needed."""

    pgcode = None


@pytest.mark.parametrize(
    ("vendor", "inside", "seconds", "expected"),
    [
        ("postgresql", False, 5, ["5000"]),
        ("postgresql", False, 10**7, ["2147483647"]),
        ("postgresql", True, 5, []),
        ("sqlite", False, 5, []),
    ],
)
def test_postgres_ends_an_idle_transaction(monkeypatch, vendor, inside, seconds, expected):
    executed = []
    cursor = nullcontext(SimpleNamespace(execute=executed.append))
    database = SimpleNamespace(vendor=vendor, in_atomic_block=inside, cursor=lambda: cursor)
    monkeypatch.setattr(servers, "connection", database)
    monkeypatch.setattr(servers.transaction, "atomic", lambda **options: nullcontext())
    with servers.atomic(idle_seconds=seconds):
        start = "SET LOCAL idle_in_transaction_session_timeout = "
        assert [sql.removeprefix(start) for sql in executed] == expected


def test_redis_is_tried_again_on_a_new_connection(monkeypatch):
    connections = []
    get_connection = ConnectionPool.get_connection

    def watched(self, *args, **kwargs):
        connection = get_connection(self, *args, **kwargs)
        connections.append(connection)
        if len(connections) == 1:
            monkeypatch.setattr(connection, "read_response", fail)
        return connection

    def fail(*args, **kwargs):
        monkeypatch.undo()
        raise ReadOnlyError("You can't write against a read only replica.")

    monkeypatch.setattr(ConnectionPool, "get_connection", watched)
    cache.set("key", "value")
    assert len(connections) == 1
    assert cache.get("key") == "value"


def test_a_pickled_value_in_redis_is_not_loaded(bomb):
    cache.get_master_client().set(cache.make_key("bomb"), bomb)
    with pytest.raises(ValueError):
        cache.get("bomb")


@pytest.mark.django_db(transaction=True)  # django-rq enqueues after the commit
def test_clearing_the_cache_leaves_the_queue_alone(queue):
    cache.set("key", "value")
    job = queue.enqueue("operator.add", 1, 2)
    cache.clear()
    assert cache.get("key") is None
    assert queue.job_ids == [job.id]
