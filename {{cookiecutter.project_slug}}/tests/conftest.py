from uuid import uuid4

import pytest
from django.core.cache import cache
from django.http import HttpResponse
from django_rq import get_queue, get_worker
from redis import exceptions
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker

from tokens.models import Token
from tokens.visitors import remember_visitor


@pytest.fixture(autouse=True)
def _redis():
    """Start each test with an empty Redis."""
    cache.get_master_client().flushdb()


@pytest.fixture
def queue():
    return get_queue()


@pytest.fixture
def work():
    """Return a function that runs the jobs in the queue, then returns."""

    class Worker(SimpleWorker):
        death_penalty_class = TimerDeathPenalty

    return lambda: get_worker(worker_class=Worker, serializer="json").work(
        burst=True, logging_level="WARNING"
    )


@pytest.fixture
def no_redis(monkeypatch):
    """Make every connection to Redis fail."""

    def fail(*args, **kwargs):
        raise exceptions.ConnectionError("no Redis")

    monkeypatch.setattr("redis.connection.ConnectionPool.get_connection", fail)


@pytest.fixture
def visitor(client):
    """Return the id of a visitor whose cookie the test client has."""
    visitor = uuid4()
    response = HttpResponse()
    remember_visitor(response, visitor)
    client.cookies.update(response.cookies)
    return visitor


@pytest.fixture
def token(visitor, db):
    return Token.objects.create(visitor=visitor, state="ready", value="a" * 64)


@pytest.fixture
def pending(visitor, db):
    return Token.objects.create(visitor=visitor)
