"""What asks for jobs: run.py calls these functions in the Python and the folder of each side."""

import statistics
import time
from uuid import uuid4


def site():
    """Measure the site's jobs."""
    from django.db import connection

    Token, jobs = load_site()
    with connection.cursor() as cursor:
        latency(cursor, "tokens_token", lambda token_id: jobs.enqueue(Token(pk=token_id)))


def alone():
    """Measure the jobs of RQ alone."""
    import os

    import alone
    import psycopg2

    queue = alone.queue()
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    connection.autocommit = True
    with connection.cursor() as cursor:
        latency(cursor, "bare", lambda token_id: queue.enqueue(alone.generate, token_id))


def latency(cursor, table, enqueue):
    """Print the median time from before a job is enqueued until a query finds its token ready."""
    times = []
    for _ in range(30):
        token_id = str(uuid4())
        cursor.execute(
            f"INSERT INTO {table} (id, visitor, value, state, created)"
            " VALUES (%s, %s, '', 'pending', now())",
            [token_id, token_id],
        )
        start = time.perf_counter()
        enqueue(token_id)
        ready = f"SELECT 1 FROM {table} WHERE id = %s AND state = 'ready'"
        while cursor.execute(ready, [token_id]) or not cursor.fetchone():
            time.sleep(0.001)
        times.append(time.perf_counter() - start)
    print(statistics.median(times))


def enqueue(count):
    """Enqueue the jobs of so many new tokens of the site."""
    Token, jobs = load_site()
    for token in Token.objects.bulk_create(Token(visitor=uuid4()) for _ in range(count)):
        jobs.enqueue(token)


def load_site():
    import django

    django.setup()
    from tokens import jobs
    from tokens.models import Token

    return Token, jobs
