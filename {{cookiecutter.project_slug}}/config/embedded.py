"""Redis inside `runserver`, for development with nothing installed but Python.

Used when DEBUG is on and REDIS_URL is not set; never imported in production. The worker and the
clock that run in the same process are in jobs/embedded.py.
"""

from fakeredis import FakeRedisConnection, FakeServer

# One server for all threads: each has a connection pool of its own.
CACHE_OPTIONS = {"connection_class": FakeRedisConnection, "server": FakeServer()}
