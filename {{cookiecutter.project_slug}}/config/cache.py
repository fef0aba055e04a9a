"""One Redis connection pool for Django's cache and for RQ."""

from functools import cached_property

from django.core.cache.backends.redis import RedisCache as DjangoRedisCache
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry


class RedisCache(DjangoRedisCache):
    """Django's Redis cache, which also gives django-rq its connection.

    With `USE_REDIS_CACHE`, django-rq calls the cache's `get_master_client`, which Django's backend
    lacks. This way the queue uses the cache's URL, TLS options and timeouts.
    """

    def __init__(self, server, params):
        # Try again once, on a new connection, if the old one was stale or leads to a replica, but
        # not if Redis hangs.
        stale = (exceptions.ConnectionError, exceptions.MasterDownError, exceptions.ReadOnlyError)
        retry = Retry(NoBackoff(), 1, supported_errors=stale)
        super().__init__(server, params | {"OPTIONS": {"retry": retry} | params.get("OPTIONS", {})})

    def get_master_client(self):
        """Return the `redis.Redis` to write to."""
        return self._master_client

    @cached_property
    def _master_client(self):
        return self._cache.get_client(write=True)

    def count(self, key, period, by=1):
        """Add to a number and return it. It expires `period` seconds after the first time.

        This takes one round trip; `add` and `incr` would take three. If only `incr` arrives, the
        next call sets the expiry.
        """
        key = self.make_and_validate_key(key)
        with self._master_client.pipeline(transaction=False) as pipeline:
            pipeline.incr(key, by)
            pipeline.expire(key, period, nx=True)
            return pipeline.execute()[0]

    def clear(self):
        """Delete the cache's keys only: Django's `clear` would empty RQ's queue as well."""
        for key in self._master_client.scan_iter(self.make_key("*")):
            self._master_client.delete(key)
        return True
