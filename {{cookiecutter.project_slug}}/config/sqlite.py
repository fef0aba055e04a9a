"""Back up, check and copy a SQLite database while the site runs, for deploy/production.sh.

`python -m config.sqlite backup DATABASE > FILE`, `check < FILE`, `copy DATABASE TO`, or
`exchange DATABASE OTHER`.
"""

import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import NamedTemporaryFile

from django.db.backends.sqlite3._functions import register


def connect(database, mode="rw"):
    """Open the database file; raise sqlite3.OperationalError if there is none."""
    uri = f"{Path(database).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True)
    register(connection)  # constraints and indexes may use Django's functions, such as REGEXP
    return closing(connection)


def copy(database, to):
    """Copy the database as it is at one moment. Readers of `to` see all of the change, or none."""
    with connect(database) as source, connect(to, "rwc") as target:
        source.backup(target)


def exchange(database, other):
    """Swap the contents of two databases. Ctrl-C cannot interrupt it halfway.

    If something else does, exchanged.sqlite3 may be the only copy of the first one: keep it.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    spare = Path(other).with_name("exchanged.sqlite3")
    if spare.exists():
        sys.exit(
            f"An exchange was interrupted, and {spare} may be the only copy. Keep it under another "
            f"name: docker compose run --rm migrate mv {spare} {spare}.kept"
        )
    partial = spare.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    copy(database, partial)
    partial.rename(spare)  # so it exists only if it is complete
    copy(other, database)
    copy(spare, other)
    spare.unlink()


def backup(database):
    """Write the database as it is at one moment to standard output."""
    with NamedTemporaryFile(dir=Path(database).parent) as file:
        copy(database, file.name)
        shutil.copyfileobj(file, sys.stdout.buffer)


def check():
    """Exit with an error unless standard input is a complete database."""
    with NamedTemporaryFile() as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        try:
            with connect(file.name) as connection:
                (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = error
        if found != "ok":
            sys.exit(f"This is not a complete database: {found}")


if __name__ == "__main__":
    commands = {"backup": backup, "check": check, "copy": copy, "exchange": exchange}
    commands[sys.argv[1]](*sys.argv[2:])
