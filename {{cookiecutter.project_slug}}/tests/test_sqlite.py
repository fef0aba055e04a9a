import io
import runpy
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from config import sqlite

SCRIPT = Path(sqlite.__file__)


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the script with some input; it returns the output."""

    def run(command, database, given=b""):
        output = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(SCRIPT), command, str(database)])
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
    """Return the file of a database in use: its newest rows are still in its log."""
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


def test_what_was_backed_up_is_restored(database, run):
    notes = execute(database, "SELECT * FROM notes")
    backup = run("backup", database)
    execute(database, "DELETE FROM notes")
    run("restore", database, backup)
    assert execute(database, "SELECT * FROM notes") == notes
    assert [path.name for path in database.parent.iterdir() if path.is_dir()] == []


def test_a_database_that_is_not_there_is_no_backup(tmp_path, run):
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        run("backup", tmp_path / "db.sqlite3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "half", "other", "garbage", "damaged", "foreign"])
def test_what_is_no_whole_backup_changes_nothing(database, tmp_path, run, damage):
    notes = execute(database, "SELECT * FROM notes")
    backup = run("backup", database)
    execute(tmp_path / "foreign", "CREATE TABLE other (name)")
    given = {
        "empty": b"",
        "half": backup[: len(backup) // 2],
        "other": b"PGDMP" + backup[5:],
        "garbage": b"garbage" * 1000,
        "damaged": backup[:8192] + b"\xff" * 8192 + backup[16384:],
        "foreign": (tmp_path / "foreign").read_bytes(),
    }[damage]
    refused = r"Nothing was changed: this is no whole backup of a site \(.+\)\."
    with pytest.raises(SystemExit, match=rf"^{refused}$"):
        run("restore", database, given)
    assert execute(database, "SELECT * FROM notes") == notes
    assert run("backup", database)
