"""What Redis holds about jobs: their ids in RQ's queues, their progress, and their number.

None of it is the only copy of anything, and nothing here raises if Redis does not answer.
"""

import logging
import time
from functools import partial
from itertools import groupby, islice
from operator import attrgetter

from django.core.cache import cache
from django.db import connection, transaction
from django_rq import get_queue
from redis.exceptions import RedisError
from rq import Queue

logger = logging.getLogger(__name__)

# The most jobs of one queue that Redis holds. The rest wait in the table, so no flood fills Redis.
MAX_IN_REDIS = 1000

# After Redis fails to answer, it is left alone for this many seconds. A request that enqueues 60
# jobs then waits for one timeout, not for 60.
PAUSE = 5

# Seconds between two progress reports of a job. Pages do not ask more often.
REPORT_EVERY = 0.2

# Seconds that RQ remembers a job that has ended. With 0 it would delete it at once, over one more
# connection than docs/heroku.md counts.
RESULT_TTL = 10

# Seconds for which RQ remembers a dead work-horse. The clock looks every few seconds.
FAILURE_TTL = 60 * 60

# Where the clock stores its counts, for how many seconds a process trusts what it read, and after
# how many the clock seems to have stopped.
COUNTS_KEY = "jobs:counts"
COUNTS_AGE = 1
COUNTS_LATE = 60


class State:
    """What this process knows about Redis."""

    silent_until = 0.0
    counts = {}
    counts_until = 0.0


def leave_alone(error):
    """Log that Redis did not answer, and leave it alone for a while."""
    State.silent_until = time.monotonic() + PAUSE
    logger.warning("Redis does not answer; the clock will send what it missed: %s", error)


def redis_is_silent():
    """Return whether Redis did not answer a moment ago."""
    return time.monotonic() < State.silent_until


def send_committed(jobs):
    """Send jobs of a transaction, except those whose queue has more than Redis may hold."""
    send([job for job in jobs if count_unfinished(job.queue_name) < MAX_IN_REDIS])
    jobs.clear()  # inside a TestCase, this hook stays where `send_on_commit` looks


def send_on_commit(job):
    """Send the job after the commit, with those just enqueued in the same savepoint."""
    if connection.run_on_commit:
        savepoints, hook, _ = connection.run_on_commit[-1]
        ours = getattr(hook, "func", None) is send_committed
        if ours and hook.args[0] and savepoints == set(connection.savepoint_ids):
            hook.args[0].append(job)
            return
    transaction.on_commit(partial(send_committed, [job]), robust=True)


def send(jobs):
    """Send the next attempts of jobs to RQ, in one round trip for each queue."""
    by_queue = attrgetter("queue_name")
    for queue_name, group in groupby(sorted(jobs, key=by_queue), key=by_queue):
        if redis_is_silent():
            return
        queue = get_queue(queue_name)
        attempts = [attempt_of(job) for job in islice(group, MAX_IN_REDIS)]
        try:
            with queue.connection.pipeline() as pipeline:
                # Not `enqueue`, which django-rq would delay until a commit.
                queue.enqueue_many(attempts, pipeline=pipeline)
                # A work-horse may have died before it claimed this attempt.
                for attempt in attempts:
                    queue.failed_job_registry.remove(attempt.job_id, pipeline=pipeline)
                pipeline.execute()
        except RedisError as error:
            leave_alone(error)


def attempt_of(job):
    """Return RQ's job for the next attempt. The arguments stay in the row."""
    attempt = job.attempts + 1
    return Queue.prepare_data(
        "jobs.worker.run",
        args=[str(job.pk), attempt],
        job_id=job.rq_id(attempt),
        timeout=job.timeout,
        description=str(job),
        result_ttl=RESULT_TTL,
        failure_ttl=FAILURE_TTL,
    )


def count_unfinished(queue_name):
    """Return the number of unfinished jobs in the queue, as the clock last counted it.

    Without Redis or a clock, count here.
    """
    from jobs.models import Job  # imports this module

    now = time.monotonic()
    if now >= State.counts_until:
        State.counts_until = now + COUNTS_AGE
        counts = None
        try:
            counts = None if redis_is_silent() else cache.get(COUNTS_KEY)
        except RedisError as error:
            leave_alone(error)
        fresh = counts and counts["at"] >= time.time() - COUNTS_LATE
        State.counts = counts["unfinished"] if fresh else Job.objects.count_by_queue()
    return State.counts.get(queue_name, 0)


def report_progress(job, percent):
    """Store the progress of a running job, in percent, for as long as its attempt may take."""
    now = time.monotonic()
    if now >= job.report_after and not redis_is_silent():
        job.report_after = now + REPORT_EVERY
        try:
            cache.set(f"jobs:progress:{job.pk}", percent, job.timeout)
        except RedisError as error:  # progress is not worth failing the job
            leave_alone(error)


def get_progress(ids):
    """Return the progress of the jobs, in percent, by id, in one round trip.

    Jobs that have reported nothing are left out. Without Redis, the dictionary is empty.
    """
    keys = {f"jobs:progress:{pk}": pk for pk in ids}
    try:
        return {keys[key]: percent for key, percent in cache.get_many(keys).items()}
    except RedisError:
        return {}
