"""Check whether the database and Redis accept writes.

After a failover, a connection may lead to a server that has become a replica: it answers, but
refuses writes. A new connection leads to the server that the URL names now.
"""

from django.core.cache import cache
from django.db import OperationalError, connection


def check_database():
    """Raise a database error unless writes are accepted; the next query makes a new connection."""
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
    """Return whether a write failed because the database is read-only; if so, disconnect."""
    read_only = getattr(exception.__cause__, "pgcode", None) == "25006"
    if read_only:
        connection.close()
    return read_only
