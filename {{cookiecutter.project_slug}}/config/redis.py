"""One Redis connection pool for Django's cache and for RQ."""

from functools import cached_property

from django.core.cache.backends import redis


class RedisCache(redis.RedisCache):
    """Django's Redis cache, which also hands its connection to django-rq.

    With `USE_REDIS_CACHE`, django-rq asks the cache for its client by this method, which
    Django's backend lacks. So the queue has the cache's URL, TLS and timeouts.
    """

    def get_master_client(self):
        """Return the `redis.Redis` that writes go to."""
        return self._master_client

    @cached_property
    def _master_client(self):
        return self._cache.get_client(write=True)
