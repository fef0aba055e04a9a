"""Run tasks at the times in settings.SCHEDULE: {"path.of.a.task": "crontab"}.

A crontab has five fields and is read in TIME_ZONE.
"""

import logging
from datetime import UTC, datetime, timedelta
from inspect import signature

from croniter import CroniterError, croniter
from django.conf import settings
from django.core.checks import Error, register
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.module_loading import import_string

from config.compat import Task, TaskResultStatus
from config.servers import atomic
from jobs.backend import Backend
from jobs.models import GRACE, Job, Schedule

logger = logging.getLogger(__name__)

# Daylight saving time never shifts clocks by more than this.
LARGEST_SHIFT = timedelta(hours=3)


def enqueue_due():
    """Enqueue each task whose time has come: once, with any number of clocks.

    A new or changed entry starts from now. If no clock ran for a while, the missed times count as
    one.
    """
    entries = set(settings.SCHEDULE.items())
    new = entries - set(Schedule.objects.values_list("task", "crontab"))
    for path, crontab in new:
        with atomic(idle_seconds=GRACE):
            Schedule.objects.get_or_create(task=path, crontab=crontab)
    due = Schedule.objects.annotate(now=Now()).filter(Q(due=None) | Q(due__lte=Now()))
    for row in due:
        if (row.task, row.crontab) in entries:
            try:
                enqueue(row)
            except Exception:
                logger.exception("SCHEDULE: %s could not be enqueued", row)
        elif row.due is None or row.now - row.due > timedelta(hours=1):
            # Wait an hour: a clock of another version may still have the entry, and keep it moving.
            row.delete()


def enqueue(row):
    """Enqueue the task of a due entry, and set the entry's next time: both, or neither."""
    with atomic(idle_seconds=GRACE):
        # Only one clock gets past this UPDATE.
        same = Schedule.objects.filter(pk=row.pk, due=row.due)
        moved = same.update(due=next_time(row.crontab, row.now))
        # Without a worker, the missed times count as one.
        ready = Job.objects.filter(task=row.task, args=[], kwargs={}, status=TaskResultStatus.READY)
        waiting = ready.exclude(attempts=0, missing_since=None, due__gt=Now())  # deferred
        if moved and row.due and not waiting.exists():
            task = import_string(row.task)
            task.get_backend().enqueue(task, [], {}, bounded=False)


def next_time(crontab, after):
    """Return the first time of the crontab after `after`, both aware.

    When daylight saving time ends, a fixed hour counts once, and a repeating one (`*`) both times.
    When it begins, a skipped time moves to the end of the gap.
    """
    zone = timezone.get_default_timezone()
    hours = crontab.split()[1]
    found = set()
    start = after.astimezone(zone).replace(tzinfo=None) - LARGEST_SHIFT
    for wall in croniter(crontab, start).all_next(datetime):
        if found and wall.replace(tzinfo=zone).astimezone(UTC) > min(found) + LARGEST_SHIFT:
            return min(found)
        found |= {moment for moment in moments(wall, zone, hours) if moment > after}


def moments(wall, zone, hours):
    """Return the moments, in UTC, at which the wall clock shows `wall`."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first <= second:
        return {first, second} if "*" in hours else {first}
    if hours == "*":
        return set()
    while second.astimezone(zone).replace(tzinfo=None) < wall:
        second += timedelta(minutes=1)
    return {second}


@register
def check_schedule(**kwargs):
    """Return an error for each entry with a bad task or crontab."""
    errors = []
    for path, crontab in settings.SCHEDULE.items():
        try:
            task = import_string(path)
            if not isinstance(task, Task) or not isinstance(task.get_backend(), Backend):
                raise ValueError(f"{path} is not a task for jobs/")
            if len(str(crontab).split()) != 5:
                raise ValueError("it needs five fields, such as 0 3 * * *")
            next_time(crontab, timezone.now())
            Schedule(task=path, crontab=crontab).clean_fields()  # not too long
            signature(task.func).bind(*["context"] * task.takes_context)  # no arguments
        except (CroniterError, ImportError, TypeError, ValidationError, ValueError) as error:
            errors.append(Error(f"SCHEDULE: {crontab!r} for {path}: {error}", id="jobs.E002"))
    return errors
