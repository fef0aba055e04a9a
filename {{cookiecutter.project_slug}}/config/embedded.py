"""Redis inside `runserver`, for development with nothing installed but Python.

Used when DEBUG is on and REDIS_URL is not set. Production never imports it. The worker and the
clock that run in the same process are in jobs/embedded.py.
"""

from fakeredis import FakeRedisConnection, FakeServer

# One server for all threads: each thread has its own connection pool.
CACHE_OPTIONS = {"connection_class": FakeRedisConnection, "server": FakeServer()}
