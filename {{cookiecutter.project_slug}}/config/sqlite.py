"""Back up the site's SQLite database, and restore it, while the site runs.

Use it as `python -m config.sqlite backup DATABASE > FILE`, and with `restore` and `< FILE`.
"""

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory


def connect(database):
    """Open the database file; raise sqlite3.OperationalError if there is none."""
    return closing(sqlite3.connect(f"{Path(database).absolute().as_uri()}?mode=rw", uri=True))


def backup(database):
    """Write the database, as it is at one moment, to standard output."""
    with TemporaryDirectory(dir=Path(database).parent) as folder:
        copy = Path(folder, "copy")
        with connect(database) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        with copy.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)


def restore(database):
    """Put the backup on standard input in place of the database, or exit and change nothing."""
    with TemporaryDirectory(dir=Path(database).parent) as folder:
        copy = Path(folder, "copy")
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with connect(copy) as source, connect(database) as target:
            try:
                (found,) = source.execute("PRAGMA integrity_check(1)").fetchone()
                source.execute("SELECT name FROM django_migrations").fetchone()
            except sqlite3.DatabaseError as error:
                found = error
            if found != "ok":
                found = " ".join(str(found).split())
                sys.exit(f"Nothing was changed: this is no whole backup of a site ({found}).")
            source.backup(target)


if __name__ == "__main__":
    {"backup": backup, "restore": restore}[sys.argv[1]](sys.argv[2])
