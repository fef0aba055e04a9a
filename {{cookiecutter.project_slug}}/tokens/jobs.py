"""The background job that makes a token, and what its queue says about it.

The row in the database is the truth: it is committed as pending before the job is enqueued.
Redis only carries the job; what it loses, `sweep` in tokens/clock.py puts back.
"""

import logging
import time
from contextlib import suppress

from django.core.cache import cache
from django_rq import get_queue
from redis.exceptions import RedisError
from rq import Callback, Retry, get_current_job
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from tokens import conf
from tokens.models import Token, new_value

logger = logging.getLogger(__name__)

# Seconds between two reports of progress: a page that polls twice a second sees no more.
REPORT_EVERY = 0.2

# Seconds before each new attempt of a job that raised, died or ran over its time.
RETRY_AFTER = [5, 15, 45]

STATUS = {
    JobStatus.STARTED: "running",
    JobStatus.SCHEDULED: "retrying",
}


def enqueue(token):
    """Enqueue the job of a pending token, after the running transaction if there is one.

    The job has the token's id. One that runs twice does no harm: `generate` is idempotent.
    Raises RedisError when Redis does not take it; the sweep enqueues it later.
    """
    get_queue().enqueue(
        generate,
        str(token.pk),
        job_id=str(token.pk),
        retry=Retry(max=len(RETRY_AFTER), interval=RETRY_AFTER),
        on_failure=Callback(job_failed),
        failure_ttl=int(conf.LIFETIME.total_seconds()),
    )


def generate(token_id):
    """Make the value of a token, slowly, reporting progress in percent.

    Does nothing when the token is ready, or was deleted. One that failed is made after all: its
    job runs again only when staff requeue it.
    """
    started = time.monotonic()
    job = get_current_job()
    attempt = len(RETRY_AFTER) - (job.retries_left or 0) + 1
    outcome = "raised"
    try:
        unmade = Token.objects.filter(pk=token_id).exclude(state=Token.State.READY)
        if unmade.exists():
            steps = max(1, round(conf.WORK_SECONDS / REPORT_EVERY))
            for step in range(steps):
                job.meta["progress"] = 100 * step // steps
                with suppress(RedisError):  # no reason to give up the work
                    job.save_meta()
                time.sleep(conf.WORK_SECONDS / steps)
        made = unmade.update(value=new_value(), state=Token.State.READY)
        outcome = "ready" if made else "nothing to do"
    finally:
        logger.info(
            'job=%s token=%s attempt=%d seconds=%.2f outcome="%s"',
            job.id,
            token_id,
            attempt,
            time.monotonic() - started,
            outcome,
        )


def job_failed(job, connection, *exc_info):
    """Mark the token as failed, once RQ has no attempt left for its job."""
    if not job.should_retry:
        fail(job.id)


def fail(token_id):
    """Mark a token as failed, for its visitor to try again, unless it is ready by now."""
    if Token.objects.pending().filter(pk=token_id).update(state=Token.State.FAILED):
        logger.warning('token=%s outcome="failed"', token_id)


def add_progress(tokens):
    """Give each pending token its `status` (queued, running or retrying) and `progress` (%).

    One round trip to Redis for all of them, none when nothing is pending. Without Redis, or when
    it was emptied under a running job, they are shown as queued.
    """
    pending = [token for token in tokens if token.is_pending]
    if not pending:
        return
    ids = [str(token.pk) for token in pending]
    try:
        jobs = Job.fetch_many(ids, cache.get_master_client(), serializer=JSONSerializer)
    except (RedisError, NoSuchJobError):
        jobs = [None] * len(pending)
    for token, job in zip(pending, jobs, strict=True):
        token.status = STATUS.get(job and job.get_status(refresh=False), "queued")
        token.progress = job.meta.get("progress", 0) if job else 0
