"""RQ alone, the baseline of the worker: the site's job without Django and without progress."""

import os
import secrets

import psycopg2
from redis import Redis
from rq import Queue, Worker


def queue():
    return Queue(connection=Redis.from_url(os.environ["REDIS_URL"]))


def work():
    """Work on the queue. All that a job needs is imported before the worker forks for it."""
    Worker([queue()]).work()


def generate(token_id):
    """Make the value of a token: one UPDATE. The process is the job's own, so is the connection."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE bare SET value = %s, state = 'ready' WHERE id = %s",
            [secrets.token_hex(32), token_id],
        )
    connection.close()
