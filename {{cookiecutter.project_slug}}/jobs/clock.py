"""The clock, which ticks every few seconds. Any number of clocks may run at once.

Each step reads a limited number of rows through an index, however long the backlog is.
"""

import logging
import time
from datetime import timedelta

from django.conf import settings
from django.core.cache import cache
from django.db import InterfaceError, OperationalError, close_old_connections
from django.db.models import Q
from django.db.models.functions import Now
from django_rq import get_queue
from redis.exceptions import RedisError
from rq.registry import clean_registries

from config.compat import TaskResultStatus
from config.servers import atomic, check_database
from jobs import queue, schedule
from jobs.models import GRACE, Job, first_line
from jobs.worker import finish

logger = logging.getLogger(__name__)

INTERVAL = 5  # seconds between two ticks
KEEP = timedelta(days=1)  # how long finished jobs are kept
BATCH = 1000  # rows

# Younger jobs are about to be sent to Redis by the process that made them.
YOUNG = timedelta(seconds=2)


class AttemptLost(Exception):
    """The attempt's worker died, or the attempt took too long."""


def tick():
    """Do everything that is due; return whether all of it worked.

    If a step raises, that is logged, the other steps still run, and the next tick tries again.
    """
    close_old_connections()
    steps = [(check_database,), (purge,), (schedule.enqueue_due,)]
    for name in settings.RQ_QUEUES:
        steps += [(give_up_dead, name), (resend_lost, name)]
    worked = True
    for step, *arguments in [*steps, (publish,)]:
        try:
            step(*arguments)
        except Exception as error:
            silent = isinstance(error, (InterfaceError, OperationalError, RedisError))
            text = "The clock's step %s failed: %s"
            logger.error(text, step.__name__, first_line(error), exc_info=not silent)
            worked = False
    return worked


def purge():
    """Delete the jobs that finished long ago, oldest first."""
    old = Job.objects.filter(finished_at__lte=Now() - KEEP)
    for _ in range(10):
        batch = list(old.order_by("finished_at").values_list("pk", flat=True)[:BATCH])
        if not batch:
            break
        with atomic(idle_seconds=GRACE):
            old.filter(pk__in=batch).delete()  # not those that are being run again


def give_up_dead(queue_name):
    """Fail attempts that ran out of time, or whose worker RQ knows to be dead."""
    running = Job.objects.filter(queue_name=queue_name, status=TaskResultStatus.RUNNING)
    running = list(running.annotate(late=Q(due__lte=Now())).order_by("due")[:BATCH])
    dead = set()
    try:
        rq_queue = get_queue(queue_name)
        clean_registries(rq_queue)  # fails the jobs of workers without a heartbeat
        dead.update(rq_queue.failed_job_registry.get_job_ids(cleanup=False))
    except RedisError:
        logger.warning("Redis does not answer, so dead workers are not known.")
    for job in running:
        if job.late or job.rq_id(job.attempts) in dead:
            give_up(job)


def give_up(job):
    """Fail the running attempt, unless it is being committed right now."""
    with atomic(idle_seconds=GRACE):
        rows = Job.objects.select_for_update(skip_locked=True)
        found = rows.filter(pk=job.pk, status=TaskResultStatus.RUNNING, attempts=job.attempts)
        error = AttemptLost("The worker died, or the attempt took too long.")
        given_up = bool(found) and job.fail(error)
    if given_up:
        text = 'job=%s task=%s attempt=%d outcome="given up"'
        logger.warning(text, job.pk, job.task, job.attempts)
        finish(job)


def resend_lost(queue_name):
    """Send Redis the due jobs that it does not have: retries, deferred jobs, and lost ones.

    Oldest first, and only as many as Redis has room for.
    """
    # Two clocks that send the same attempt would make RQ forget it when the second one ends.
    if not cache.add(f"jobs:resent:{queue_name}", 1, 2):
        return
    rq_queue = get_queue(queue_name)
    held = {*rq_queue.get_job_ids(), *rq_queue.started_job_registry.get_job_ids(cleanup=False)}
    room = queue.MAX_IN_REDIS - len(held)
    if room <= 0:
        return
    waiting = Job.objects.due(queue_name).filter(due__lte=Now() - YOUNG)
    # Redis holds MAX_IN_REDIS - room ids, so enough of these rows are not among them.
    waiting = waiting.only("task", "queue_name", "timeout", "attempts")[: queue.MAX_IN_REDIS]
    lost = [job for job in waiting if job.rq_id(job.attempts + 1) not in held]
    queue.send(lost[:room])


def publish():
    """Store the number of unfinished jobs in the cache for `enqueue`, and the time."""
    counts = {"at": time.time(), "unfinished": Job.objects.count_by_queue()}
    cache.set(queue.COUNTS_KEY, counts, None)
