"""A job is a row, committed together with the data it is about. Redis only holds its id."""

import traceback
from datetime import timedelta
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce, Now
from django.utils.module_loading import import_string

from config.compat import TaskResultStatus as Status
from config.mail import DETAIL

# An attempt that has not ended this many seconds after its timeout counts as dead.
GRACE = 5

# How long a job waits for a worker that can import its task. A deploy may replace web before the
# worker.
IMPORT_EVERY = timedelta(minutes=1)
IMPORT_WITHIN = timedelta(days=1)

ERRORS_KEPT = 10
TRACEBACK_LENGTH = 10_000  # characters, from the end


class Cancelled(Exception):
    """Somebody cancelled the job."""


def storable(text):
    """Replace characters that Postgres cannot store, NUL and lone surrogates, with "?"."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def first_line(error):
    """Return an error's class and the first line of its text. Later lines may quote rows."""
    lines = traceback.format_exception_only(error)
    return next(line for line in lines if line[0] != " ").partition("\n")[0]


class JobQuerySet(models.QuerySet):
    def unfinished(self):
        return self.filter(status__in=[Status.READY, Status.RUNNING])

    def count_by_queue(self):
        """Return the number of unfinished jobs in each queue, but at most JOBS_MAX_UNFINISHED."""
        unfinished = self.unfinished()
        return {
            name: unfinished.filter(queue_name=name)[: settings.JOBS_MAX_UNFINISHED].count()
            for name in settings.RQ_QUEUES
        }

    def due(self, queue_name):
        """Return the queue's jobs that wait for a worker, oldest first."""
        ready = self.filter(queue_name=queue_name, status=Status.READY, due__lte=Now())
        return ready.order_by("due")


class Job(models.Model):
    """One call of a task: its arguments, its attempts, and how it ended.

    All times come from the database, so the clocks of the machines may differ.
    """

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    task = models.CharField(max_length=200, editable=False)
    queue_name = models.CharField(max_length=50, editable=False)
    args = models.JSONField(default=list, editable=False)
    kwargs = models.JSONField(default=dict, editable=False)
    timeout = models.PositiveIntegerField(editable=False)  # seconds that one attempt may take
    retries = models.JSONField(default=list, editable=False)  # seconds before each new attempt
    status = models.CharField(
        max_length=10, choices=Status.choices, default=Status.READY, editable=False
    )
    # The number of the last attempt. Only the attempt of that number can end the job.
    attempts = models.PositiveIntegerField(default=0, editable=False)
    # Attempts that failed. A shutdown ends an attempt without failing it.
    failures = models.PositiveIntegerField(default=0, editable=False)
    # When ready: the earliest time to start. When running: when the attempt counts as dead.
    due = models.DateTimeField(db_default=Now(), editable=False)
    enqueued_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    last_attempted_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)
    # Since when no worker has been able to import the task.
    missing_since = models.DateTimeField(null=True, editable=False)
    worker_ids = models.JSONField(default=list, editable=False)
    errors = models.JSONField(default=list, editable=False)
    return_value = models.JSONField(null=True, editable=False)

    objects = JobQuerySet.as_manager()

    # What the worker knows about the attempt that it is running.
    committed = False
    report_after = 0.0

    class Meta:
        indexes = [
            # For the clock. Small, because most jobs are finished.
            models.Index(
                fields=["queue_name", "status", "due"],
                name="job_unfinished",
                condition=Q(status__in=["READY", "RUNNING"]),
            ),
            # For the purge.
            models.Index(fields=["finished_at"], name="job_finished_at"),
            # For the admin's list, and its filter for failed jobs.
            models.Index(fields=["-enqueued_at"], name="job_enqueued_at"),
            models.Index(fields=["-enqueued_at"], name="job_failed", condition=Q(status="FAILED")),
        ]

    def __str__(self):
        return f"{self.task} {self.pk}"

    def rq_id(self, attempt):
        """Return the id of an attempt in RQ."""
        return f"{self.pk}-{attempt}"

    @property
    def is_unfinished(self):
        return self.status in {Status.READY, Status.RUNNING}

    def get_task(self):
        """Return the task. Raise ImportError if there is none at its path, or its queue is gone."""
        try:
            return import_string(self.task).using(queue_name=self.queue_name)
        except Exception as error:
            raise ImportError(f"{self.task}: {error}") from error

    def claim(self, worker_id):
        """Start the next attempt. Return False if another worker has started it.

        This is one UPDATE, so no attempt starts twice, however often Redis was given its id.
        """
        attempt = self.attempts + 1
        claimed = self._update(
            Status.READY,
            status=Status.RUNNING,
            attempts=attempt,
            worker_ids=[*self.worker_ids, worker_id],
            due=Now() + timedelta(seconds=self.timeout + GRACE),
            started_at=self.started_at or Now(),
            last_attempted_at=Now(),
            missing_since=None,
        )
        if claimed:
            self.refresh_from_db()
        # Not if it was given up in between.
        return claimed and (self.status, self.attempts) == (Status.RUNNING, attempt)

    def succeed(self, return_value=None):
        """End the running attempt with success. Return False if it was given up.

        After `commit()` it has already ended, and only the return value is added.
        """
        if self.committed:
            return return_value is None or self._update(
                Status.SUCCESSFUL, return_value=return_value
            )
        return self._end(Status.RUNNING, Status.SUCCESSFUL, return_value=return_value)

    def fail(self, exception):
        """End the running attempt with an error. Return False if it was given up.

        Either another attempt follows, or the job has failed for good.
        """
        failures = self.failures + 1
        fields = {"failures": failures, "errors": self._errors_with(exception)}
        if failures > len(self.retries):
            return self._end(Status.RUNNING, **fields)
        delay = timedelta(seconds=self.retries[failures - 1])
        return self._wait(Status.RUNNING, delay, **fields)

    def release(self):
        """End the running attempt because its worker stops. This costs no retry."""
        return self._wait(Status.RUNNING, timedelta())

    def postpone(self, exception):
        """Wait for a worker that can import the task, for up to a day."""
        old = Job.objects.filter(pk=self.pk, missing_since__lte=Now() - IMPORT_WITHIN)
        if old.exists():
            return self._end(Status.READY, errors=self._errors_with(exception))
        since = Coalesce("missing_since", Now())
        return self._wait(Status.READY, IMPORT_EVERY, missing_since=since)

    def cancel(self):
        """End an unfinished job. If an attempt is running, it can no longer commit."""
        errors = self._errors_with(Cancelled("Cancelled in the admin."))
        return self.is_unfinished and self._end(self.status, errors=errors)

    def run_again(self):
        """Give a failed job all its attempts again."""
        new = {"failures": 0, "finished_at": None, "missing_since": None}
        return self._wait(Status.FAILED, timedelta(), **new)

    def _end(self, before, status=Status.FAILED, **fields):
        return self._update(before, status=status, finished_at=Now(), **fields)

    def _wait(self, before, delay, **fields):
        return self._update(before, status=Status.READY, due=Now() + delay, **fields)

    def _update(self, before, **fields):
        """Update the row, if its status is still `before` and no other attempt has started."""
        same = Job.objects.filter(pk=self.pk, status=before, attempts=self.attempts)
        return bool(same.update(**fields))

    def _errors_with(self, exception):
        text = DETAIL.sub("DETAIL: left out", "".join(traceback.format_exception(exception)))
        error = {
            "exception_class_path": f"{type(exception).__module__}.{type(exception).__qualname__}",
            "traceback": storable(text[-TRACEBACK_LENGTH:]),
        }
        return [*self.errors, error][-ERRORS_KEPT:]


class Schedule(models.Model):
    """When an entry of settings.SCHEDULE is next due. One row for each task and crontab."""

    task = models.CharField(max_length=200, editable=False)
    crontab = models.CharField(max_length=100, editable=False)
    due = models.DateTimeField(null=True, editable=False)  # null: new

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "crontab"], name="schedule_entry")]

    def __str__(self):
        return f"{self.task} {self.crontab}"
