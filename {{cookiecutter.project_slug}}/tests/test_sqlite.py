import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from config import sqlite

ROOT = Path(__file__).parent.parent


def run(command, database, given=b""):
    """Run config/sqlite.py; return its exit code, what it wrote, and what it complained of."""
    done = subprocess.run(
        [sys.executable, "-m", sqlite.__name__, command, str(database)],
        input=given,
        capture_output=True,
        cwd=ROOT,
    )
    return done.returncode, done.stdout, done.stderr.decode()


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
        "CREATE TABLE tokens (value)",
        "INSERT INTO tokens VALUES (hex(randomblob(100000)))",
    )
    with closing(sqlite3.connect(database)) as reader:
        reader.execute("SELECT * FROM tokens").fetchone()
        yield database


def test_what_was_backed_up_is_restored(database):
    tokens = execute(database, "SELECT * FROM tokens")
    code, backup, _ = run("backup", database)
    assert code == 0
    execute(database, "DELETE FROM tokens")
    assert run("restore", database, backup) == (0, b"", "")
    assert execute(database, "SELECT * FROM tokens") == tokens
    assert [path.name for path in database.parent.iterdir() if path.is_dir()] == []


def test_a_database_that_is_not_there_is_no_backup(tmp_path):
    code, backup, complaint = run("backup", tmp_path / "db.sqlite3")
    assert code != 0
    assert backup == b""
    assert "unable to open database file" in complaint


@pytest.mark.parametrize("damage", ["empty", "half", "other", "garbage", "damaged", "foreign"])
def test_what_is_no_whole_backup_changes_nothing(database, tmp_path, damage):
    tokens = execute(database, "SELECT * FROM tokens")
    _, backup, _ = run("backup", database)
    execute(tmp_path / "foreign", "CREATE TABLE other (name)")
    given = {
        "empty": b"",
        "half": backup[: len(backup) // 2],
        "other": b"PGDMP" + backup[5:],
        "garbage": b"garbage" * 1000,
        "damaged": backup[:8192] + b"\xff" * 8192 + backup[16384:],
        "foreign": (tmp_path / "foreign").read_bytes(),
    }[damage]
    code, _, complaint = run("restore", database, given)
    assert code == 1
    assert complaint.startswith("Nothing was changed: this is no whole backup of a site (")
    assert complaint.count("\n") == 1
    assert execute(database, "SELECT * FROM tokens") == tokens
    assert run("backup", database)[0] == 0
