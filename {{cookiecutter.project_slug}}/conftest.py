"""Fixtures for the tests of every app."""

import os
import pickle

import pytest
from django.core.cache import cache
from django_rq import get_queue, get_worker
from redis import exceptions

from jobs.embedded import ThreadWorker
from jobs.queue import State


@pytest.fixture(autouse=True)
def _redis():
    """Start each test with an empty Redis, and forget what this process knew about the last one."""
    cache.get_master_client().flushdb()
    State.silent_until = State.counts_until = 0.0
    State.counts = {}


@pytest.fixture
def queue():
    return get_queue()


@pytest.fixture
def work():
    """Return a function that runs all jobs in the queue."""
    return lambda: get_worker(worker_class=ThreadWorker, serializer="json").work(
        burst=True, logging_level="WARNING"
    )


@pytest.fixture
def no_redis(monkeypatch):
    """Make every connection to Redis fail."""

    def fail(*args, **kwargs):
        raise exceptions.ConnectionError("no Redis")

    monkeypatch.setattr("redis.connection.ConnectionPool.get_connection", fail)


@pytest.fixture
def bomb(tmp_path):
    """Yield a pickled object; the test fails if anybody unpickles it."""
    crater = tmp_path / "crater"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(crater),)

    yield pickle.dumps(Bomb())
    assert not crater.exists()
