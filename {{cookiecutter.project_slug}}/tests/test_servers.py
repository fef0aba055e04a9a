from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from django.core.cache import cache
from django.db import InternalError, OperationalError
from redis.connection import ConnectionPool
from redis.exceptions import ReadOnlyError

from config import servers, views

pytestmark = pytest.mark.django_db


class Postgres:
    """A connection to a Postgres server that says whether it is read-only."""

    vendor = "postgresql"
    closed = False

    def __init__(self, read_only):
        self.read_only = read_only

    def cursor(self):
        return nullcontext(SimpleNamespace(execute=print, fetchone=lambda: (self.read_only,)))

    def close(self):
        self.closed = True


def test_a_database_that_accepts_writes_passes(monkeypatch):
    servers.check_database()
    monkeypatch.setattr(servers, "connection", Postgres("off"))
    servers.check_database()
    assert not servers.connection.closed


def test_a_connection_to_a_replica_is_closed(monkeypatch):
    monkeypatch.setattr(servers, "connection", Postgres("on"))
    with pytest.raises(OperationalError, match="read-only"):
        servers.check_database()
    assert servers.connection.closed


def test_a_write_to_a_replica_answers_503_and_reconnects(rf, monkeypatch):
    monkeypatch.setattr(servers, "connection", Postgres("on"))
    try:
        error = InternalError("cannot execute INSERT in a read-only transaction")
        raise error from SimpleError()
    except InternalError:
        response = views.server_error(rf.get("/"))
    assert response.status_code == 503
    assert servers.connection.closed


class SimpleError(Exception):
    """Like psycopg2's error, as far as needed."""

    pgcode = "25006"


def test_redis_is_tried_again_on_a_new_connection(monkeypatch):
    connections = []
    get_connection = ConnectionPool.get_connection

    def watched(self, *args, **kwargs):
        connection = get_connection(self, *args, **kwargs)
        connections.append(connection)
        if len(connections) == 1:
            monkeypatch.setattr(connection, "read_response", fail)
        return connection

    def fail(*args, **kwargs):
        monkeypatch.undo()
        raise ReadOnlyError("You can't write against a read only replica.")

    monkeypatch.setattr(ConnectionPool, "get_connection", watched)
    cache.set("key", "value")
    assert len(connections) == 1
    assert cache.get("key") == "value"


def test_a_pickled_value_in_redis_is_not_loaded(bomb):
    cache.get_master_client().set(cache.make_key("bomb"), bomb)
    with pytest.raises(ValueError):
        cache.get("bomb")


@pytest.mark.django_db(transaction=True)  # django-rq enqueues after the commit
def test_clearing_the_cache_leaves_the_queue_alone(queue):
    cache.set("key", "value")
    job = queue.enqueue("operator.add", 1, 2)
    cache.clear()
    assert cache.get("key") is None
    assert queue.job_ids == [job.id]
