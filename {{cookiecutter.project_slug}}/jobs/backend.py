"""A backend for Django's tasks: jobs are rows in the database, and RQ takes their ids to a worker.

`enqueue` inserts the row in the caller's transaction. After the commit, its id goes to Redis. If
Redis refuses or loses it, jobs/clock.py sends it again later.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.core import checks
from django.core.exceptions import ValidationError
from django.db import transaction

from config import compat
from config.servers import atomic
from jobs.queue import count_unfinished, report_progress, send_on_commit

# The longest timeout and delay, in seconds. Databases cannot store all times.
LONGEST = 10**8


class QueueFull(Exception):
    """The queue has as many unfinished jobs as allowed. A page that raises this answers 503."""

    retry_after = 10  # seconds


class Superseded(Exception):
    """The attempt was given up before it ended, so its writes are rolled back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask(compat.Task):
    """Django's task, with the options of this backend.

    `timeout`: how many seconds one attempt may take.
    `retries`: how many seconds to wait before each new attempt; `()` for no retries.
    """

    timeout: int = 30
    retries: tuple = (5, 15, 45)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext(compat.TaskContext):
    """The first argument of a task made with `@task(takes_context=True)`.

    `attempt` is the number of the attempt, starting at 1.
    """

    job: object
    durable = True

    def progress(self, percent):
        """Report how far the task is, for a page to show. Only Redis keeps it: it may be lost."""
        report_progress(self.job, percent)

    @contextmanager
    def commit(self):
        """Commit the block's writes together with the job's success: both, or neither.

        Use it once in an attempt, after the slow work: on SQLite it blocks all other writers.
        Raises Superseded, and rolls back, if the attempt was given up in the meantime.
        """
        if self.job.committed:
            raise RuntimeError("This attempt has already committed: call commit() once.")
        with atomic(durable=self.durable, idle_seconds=self.job.timeout):
            # First, because another callback may raise after the COMMIT.
            transaction.on_commit(partial(setattr, self.job, "committed", True))
            yield
            # Last, so that the clock never waits for the block.
            if not self.job.succeed():
                raise Superseded(f"{self.job} was given up before it ended")
        self.job.committed = True  # inside a TestCase there is no COMMIT


class Backend(compat.BaseTaskBackend):
    """Runs tasks in RQ's workers.

    A queue takes at most settings.JOBS_MAX_UNFINISHED unfinished jobs. The clock counts them
    every few seconds, so a few more may get in.
    """

    task_class = JobTask
    context_class = JobContext
    supports_async_task = True
    supports_defer = True
    supports_get_result = True

    def validate_task(self, task):
        super().validate_task(task)
        delays = task.retries if isinstance(task.retries, (list, tuple)) else [None]
        whole = all(isinstance(n, int) and 0 <= n <= LONGEST for n in [task.timeout, *delays])
        if not whole or not task.timeout:
            raise compat.InvalidTask("timeout and retries are seconds, like 30 and (5, 15, 45).")

    def enqueue(self, task, args, kwargs, *, bounded=True):
        """Insert a job in the caller's transaction, and send it to a worker after the commit.

        Raises QueueFull unless `bounded` is false, and TypeError if the arguments are not JSON.
        """
        from jobs.models import Job  # tasks can be declared before the apps are ready

        self.validate_task(task)
        if bounded and count_unfinished(task.queue_name) >= settings.JOBS_MAX_UNFINISHED:
            raise QueueFull(f"The queue {task.queue_name} is full: try again later.")
        job = Job(
            task=task.module_path,
            queue_name=task.queue_name,
            args=compat.normalize_json(args),
            kwargs=compat.normalize_json(kwargs),
            timeout=task.timeout,
            retries=list(task.retries),
        )
        if task.run_after is not None:
            job.due = task.run_after
        job.save(force_insert=True)
        result = self.get_task_result(job, task)
        compat.signals.task_enqueued.send(type(self), task_result=result)
        if task.run_after is None:
            self.start(job)
        return result

    def start(self, job):
        """Let a worker run the job once the caller's transaction is committed."""
        send_on_commit(job)

    def get_result(self, result_id):
        """Return the TaskResult. Raise TaskResultDoesNotExist if there is no such job."""
        from jobs.models import Job

        try:
            job = Job.objects.get(pk=result_id)
            return self.get_task_result(job, job.get_task())
        except (Job.DoesNotExist, ValidationError, ImportError) as error:
            raise compat.TaskResultDoesNotExist(result_id) from error

    def get_task_result(self, job, task):
        """Return a job as Django's TaskResult."""
        result = compat.TaskResult(
            task=task,
            id=str(job.pk),
            status=compat.TaskResultStatus(job.status),
            enqueued_at=job.enqueued_at,
            started_at=job.started_at,
            last_attempted_at=job.last_attempted_at,
            finished_at=job.finished_at,
            args=job.args,
            kwargs=job.kwargs,
            backend=self.alias,
            errors=[compat.TaskError(**error) for error in job.errors],
            worker_ids=list(job.worker_ids),
        )
        object.__setattr__(result, "_return_value", job.return_value)  # as Django's backends do
        return result

    def check(self, **kwargs):
        """Return an error for each queue that is missing from settings.RQ_QUEUES."""
        return [
            checks.Error(f"TASKS names the queue {name!r}, but RQ_QUEUES does not.", id="jobs.E001")
            for name in sorted(self.queues - set(settings.RQ_QUEUES))
        ]
