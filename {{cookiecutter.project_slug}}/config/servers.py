"""Whether the database and Redis take what is written to them.

After a failover the machine that a connection was made to may live on as a replica: it answers, and
refuses to write. A new connection finds the machine that the URL names by now.
"""

from django.core.cache import cache
from django.db import OperationalError, connection


def check_database():
    """Raise an exception of the database unless it takes writes; the next query connects anew."""
    postgres = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only" if postgres else "SELECT 'off'")
        (read_only,) = cursor.fetchone()
    if read_only == "on":
        connection.close()
        raise OperationalError("The database is read-only.")


def check_redis():
    """Raise RedisError unless Redis takes writes, on a new connection if need be."""
    cache.delete("none")  # a write that works even when Redis is full


def leave_replica(exception):
    """Return whether a write failed because the database is read-only; connect anew if it did."""
    read_only = getattr(exception.__cause__, "pgcode", None) == "25006"
    if read_only:
        connection.close()
    return read_only
