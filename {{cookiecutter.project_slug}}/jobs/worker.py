"""The worker. `manage.py rqworker` starts it, and it runs one attempt of a job after another."""

import logging
import tempfile
import time
from asyncio import CancelledError
from contextlib import suppress
from pathlib import Path

import rq
from django.conf import settings
from django.db import connections
from redis import exceptions
from rq.exceptions import ShutDownImminentException
from rq.worker import HerokuWorker

from config.compat import TaskResultStatus, normalize_json, signals
from jobs.models import Job, first_line

logger = logging.getLogger(__name__)


# Heroku sends SIGTERM to every process of a dyno. HerokuWorker lets a short job finish.
class Worker(HerokuWorker if settings.HEROKU else rq.Worker):
    """RQ's worker, always with this site's serializer."""

    def __init__(self, queues, *args, **kwargs):
        wait_for_redis(queues[0].connection)
        # An idle worker's heartbeat comes 15 s before its TTL ends, so every 30 s.
        kwargs |= {"serializer": queues[0].serializer, "worker_ttl": 45}
        self.redis_options = dict(queues[0].connection.connection_pool.connection_kwargs)
        super().__init__(queues, *args, **kwargs)

    def work(self, *args, **kwargs):
        # RQ would log three lines for each job. `run` logs one, which says more.
        logger.info("worker=%s queues=%s", self.name, ",".join(self.queue_names()))
        return super().work(*args, **kwargs | {"logging_level": "WARNING"})

    def dequeue_job_and_maintain_ttl(self, *args, **kwargs):
        while True:
            try:
                return super().dequeue_job_and_maintain_ttl(*args, **kwargs)
            except exceptions.ResponseError:  # the server has become a replica
                wait_for_redis(self.connection)

    def fork_work_horse(self, job, queue):
        # Errors that this process logs are mailed by a job, over a database connection.
        # Work-horses must not share it: one that is killed would leave its transaction to the next.
        connections.close_all()
        super().fork_work_horse(job, queue)

    def main_work_horse(self, *args, **kwargs):
        # Not the long timeout that RQ has set: if Redis hangs, a job goes on without it.
        self.connection.connection_pool.connection_kwargs = self.redis_options
        super().main_work_horse(*args, **kwargs)

    def heartbeat(self, *args, **kwargs):
        super().heartbeat(*args, **kwargs)
        beat("worker")


def beat(name):
    """Touch the file whose age is checked by the container's health check.

    RQ's registration in Redis will not do: a worker does not repeat it if Redis is emptied.
    """
    with suppress(OSError):  # the file is another user's: the check fails, the process goes on
        Path(tempfile.gettempdir(), f"{name}-heartbeat").touch()


class Attempt(rq.job.Job):
    """RQ's job, but it can call only `run`: Redis may name another, and is not trusted."""

    func = property(lambda self: run)
    success_callback = failure_callback = stopped_callback = None
    webhooks = property(lambda self: (), lambda self, value: None)


def wait_for_redis(connection):
    """Wait until Redis accepts writes. RQ's worker waits for an answer, but not when it starts."""
    while True:
        try:
            connection.set("jobs:worker", "", ex=1)
            return
        except exceptions.RedisError as error:
            logger.warning("The worker waits for Redis: %s", error)
            connection.connection_pool.disconnect()  # a new connection may lead to another server
            time.sleep(1)


def run(pk, attempt):
    """Run an attempt of a job, unless it has already started. The row stores exceptions."""
    started = time.monotonic()
    drop_broken_connections()
    job = Job.objects.filter(pk=pk, status=TaskResultStatus.READY, attempts=attempt - 1).first()
    if job is None:
        return
    try:
        task = job.get_task()
    except ImportError as error:  # an old worker, or a module that fails
        text = "job=%s task=%s waits up to a day for a worker that can import it: %s"
        logger.warning(text, pk, job.task, error)
        if job.postpone(error):
            finish(job, error)
        return
    if not job.claim(rq.get_current_job().worker_name):
        return
    outcome = perform(job, task)
    text = 'job=%s task=%s queue=%s attempt=%d seconds=%.2f outcome="%s"'
    seconds = time.monotonic() - started
    logger.info(text, pk, job.task, job.queue_name, attempt, seconds, outcome)


def drop_broken_connections():
    """Do what Django does between requests, but not inside a test's transaction."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def perform(job, task):
    """Call the task's function, end the attempt, and return its outcome for the log."""
    backend = task.get_backend()
    result = backend.get_task_result(job, task)
    signals.task_started.send_robust(type(backend), task_result=result)
    context = [backend.context_class(task_result=result, job=job)] if task.takes_context else []
    outcome, ended, failure = "done", False, None
    try:
        value = task.call(*context, *job.args, **job.kwargs)
        ended = job.succeed(to_json(job, value))
    except (Exception, SystemExit, CancelledError, ShutDownImminentException) as error:
        drop_broken_connections()  # they could not store the outcome
        if job.committed:
            logger.exception("job=%s raised after commit(): it has succeeded all the same", job.pk)
            ended = True
        elif isinstance(error, ShutDownImminentException):
            outcome, ended = "stopped with its worker", job.release()
        else:
            outcome = f"raised {first_line(error)}"
            ended, failure = job.fail(error), error
    if not ended:
        return "given up before it ended"
    finish(job, failure)
    return outcome


def to_json(job, value):
    """Return the value as it will be stored. Raise TypeError if it cannot be."""
    try:
        return normalize_json(value)
    except TypeError as error:
        raise TypeError(f"The return value of {job.task} is not JSON: {error}") from error


def finish(job, error=None, *, cancelled=False):
    """If the job has finished, send `task_finished`, and log an error if it failed for good."""
    job.refresh_from_db()
    if job.is_unfinished:
        return
    if job.status == TaskResultStatus.FAILED and not cancelled:
        # jobs/mail.py tells failures apart by their task.
        text, about = "job=%s task=%s has failed for good", {"task": job.task}
        logger.error(text, job.pk, job.task, extra=about, exc_info=error)
    with suppress(ImportError):  # without the task there is no result to send
        task = job.get_task()
        result = task.get_backend().get_task_result(job, task)
        signals.task_finished.send_robust(type(task.get_backend()), task_result=result)
