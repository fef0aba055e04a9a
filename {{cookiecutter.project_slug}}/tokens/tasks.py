"""The example's tasks: one for visitors, and one for the schedule."""

import time
from datetime import timedelta

from django.db.models import Exists, OuterRef
from django.dispatch import receiver
from django.utils import timezone

from config.compat import TaskResultStatus, signals, task
from config.servers import atomic
from jobs.models import Job
from tokens import conf
from tokens.models import Token, new_value

BATCH = 1000  # rows; keeps each transaction short


@task(takes_context=True)
def make_token(context, token_id):
    """Make the value of a token, slowly, and report progress."""
    unmade = Token.objects.exclude(state=Token.State.READY).filter(pk=token_id)
    if not unmade.exists():
        return  # it has been deleted
    seconds = conf.WORK_SECONDS
    started = time.monotonic()
    while (spent := time.monotonic() - started) < seconds:
        context.progress(round(100 * spent / seconds))
        time.sleep(min(0.2, seconds - spent))
    with context.commit():
        unmade.update(value=new_value(), state=Token.State.READY)


@receiver(signals.task_finished)
def mark_failed(task_result, **kwargs):
    """Let the visitor try again if a token's job has failed for good."""
    if task_result.task.func is make_token.func and task_result.status == TaskResultStatus.FAILED:
        made_by = Token.objects.pending().filter(pk=task_result.args[0], job=task_result.id)
        made_by.update(state=Token.State.FAILED)


@task
def tidy():
    """Delete expired tokens, and fix pending ones whose job has failed or is missing."""
    deleted = BATCH
    while deleted == BATCH:
        batch = Token.objects.expired().order_by("created").values_list("pk", flat=True)
        with atomic(idle_seconds=10):
            deleted, _ = Token.objects.filter(pk__in=list(batch[:BATCH])).delete()
    job = Job.objects.filter(pk=OuterRef("job"))
    pending = Token.objects.pending().filter(created__lte=timezone.now() - timedelta(minutes=1))
    failed = pending.filter(Exists(job.filter(status=TaskResultStatus.FAILED)))
    failed.update(state=Token.State.FAILED)
    # From an older version of the site, whose tokens had no jobs.
    for token in pending.filter(~Exists(job)).order_by("created")[:BATCH]:
        result = make_token.enqueue(str(token.pk))
        Token.objects.filter(pk=token.pk).update(job=result.id)
