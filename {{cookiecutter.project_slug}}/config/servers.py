"""For when servers or machines vanish: checks that writes are accepted, and short locks.

After a failover, a connection may lead to a server that has become a replica: it answers, but
refuses writes. A new connection leads to the server that the URL names now.
"""

from contextlib import contextmanager

from django.core.cache import cache
from django.db import OperationalError, connection, transaction


def check_database():
    """Raise a database error if there is no answer, or if it is read-only; then reconnect."""
    postgres = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only" if postgres else "SELECT 'off'")
        (read_only,) = cursor.fetchone()
    if read_only == "on":
        connection.close()
        raise OperationalError("The database is read-only.")


def check_redis():
    """Raise RedisError unless Redis accepts writes, on a new connection if necessary."""
    cache.delete("none")  # a write that works even if Redis is full


def leave_replica(exception):
    """Return whether the database refused to write; if so, disconnect.

    It is read-only, or the site may no longer write: Heroku revokes that from full databases.
    """
    read_only = getattr(exception.__cause__, "pgcode", None) in {"25006", "42501"}
    if read_only:
        connection.close()
    return read_only


@contextmanager
def atomic(*, idle_seconds, durable=False):
    """Django's `atomic`, but Postgres rolls back after `idle_seconds` without a statement.

    If a process freezes or its machine vanishes, Postgres would otherwise keep the locks for hours,
    and everybody else would wait for them. Inside another transaction, the outer limit applies.
    """
    limited = connection.vendor == "postgresql" and not connection.in_atomic_block
    with transaction.atomic(durable=durable):
        if limited:
            with connection.cursor() as cursor:
                milliseconds = min(idle_seconds * 1000, 2**31 - 1)  # the most that Postgres takes
                cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds:d}")
        yield
