"""What has to happen again and again: due retries, the sweep for lost jobs, the purge.

Run by `manage.py clock`, or by `runserver` when it carries its own worker. Any number of clocks
may run at once: what two of them do twice, the second finds done, or `generate` does once.
"""

import logging
from datetime import timedelta

from django.db import close_old_connections
from django.utils import timezone
from django_rq import get_queue
from rq.registry import clean_registries
from rq.scheduler import RQScheduler

from tokens import jobs
from tokens.models import Token

logger = logging.getLogger(__name__)

INTERVAL = 5  # seconds between two ticks

# A younger pending row may be just about to be enqueued by the request that committed it.
SWEEP_AFTER = timedelta(seconds=5)

PURGE_BATCH = 1000  # rows; keeps each transaction short


def enqueue_retries():
    """Enqueue the jobs whose time for another attempt has come."""
    queue = get_queue()
    scheduler = RQScheduler([queue], queue.connection, serializer=queue.serializer)
    # Else it opens a connection of its own, each second another one.
    scheduler._connection = queue.connection
    scheduler.prepare_registries([queue.name])
    scheduler.enqueue_scheduled_jobs()


def sweep():
    """Enqueue every pending token that no job stands for any more; fail those whose job failed.

    A job is lost when Redis is emptied or was not reached after the commit. The job of a worker
    that died is found by RQ itself, a minute and a half after its last heartbeat.
    """
    queue = get_queue()
    clean_registries(queue)
    # In the order in which a job passes them, so that none slips through.
    carried = {
        *queue.job_ids,
        *queue.started_job_registry.get_job_ids(),
        *queue.scheduled_job_registry.get_job_ids(),
    }
    failed = {
        *queue.failed_job_registry.get_job_ids(),
        *queue.canceled_job_registry.get_job_ids(),
    }
    for token in Token.objects.pending().filter(created__lt=timezone.now() - SWEEP_AFTER):
        if str(token.pk) in carried:
            continue
        if str(token.pk) in failed:
            jobs.fail(token.pk)
        else:
            logger.warning('token=%s outcome="job lost, enqueued again"', token.pk)
            # Where a worker that died between taking the job and starting it has left it.
            queue.intermediate_queue.remove(str(token.pk))
            jobs.enqueue(token)


def purge():
    """Delete the expired tokens, in batches."""
    deleted = PURGE_BATCH
    while deleted == PURGE_BATCH:
        batch = Token.objects.expired().order_by("created").values_list("pk", flat=True)
        deleted, _ = Token.objects.filter(pk__in=list(batch[:PURGE_BATCH])).delete()
        if deleted:
            logger.info("purged=%d", deleted)


def tick():
    """Do all that is due. What raises is logged, and done again at the next tick."""
    close_old_connections()
    for task in (enqueue_retries, sweep, purge):
        try:
            task()
        except Exception:
            logger.exception("%s failed", task.__name__)
