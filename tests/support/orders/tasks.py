"""Tasks that take effect in `commit()`, outside of it, after a long time, or in a later version."""

import os
import signal
import time
from contextlib import suppress

from config.compat import task
from jobs.models import Job
from orders.models import Effect

RETRIES = (1, 1, 1)


@task(takes_context=True, timeout=3, retries=RETRIES)
def charge(context, order_id, trouble):
    work(order_id, trouble, context.attempt)
    with context.commit():
        Effect.objects.create(order_id=order_id)
        if trouble == "freezes" and context.attempt == 1:
            freeze(context.job)


@task(takes_context=True, timeout=3, retries=RETRIES)
def remind(context, order_id, trouble):
    """Takes effect outside `commit()`, so it may happen twice."""
    work(order_id, trouble, context.attempt)
    Effect.objects.create(order_id=order_id)


@task(takes_context=True, timeout=600, retries=RETRIES)
def close_books(context, order_id, trouble):
    """Takes minutes in its first attempt."""
    time.sleep(300 if context.attempt == 1 else 0.1)
    with context.commit():
        Effect.objects.create(order_id=order_id)


@task(takes_context=True, timeout=3, retries=RETRIES)
def ship(context, order_id, trouble):
    """Not in the previous version."""
    with context.commit():
        Effect.objects.create(order_id=order_id)


def work(order_id, trouble, attempt):
    if trouble == "raises" or (trouble == "raises once" and attempt == 1):
        raise RuntimeError(trouble)
    if trouble == "overruns" and attempt == 1:
        overrun(order_id)
    time.sleep(60 if trouble == "hangs" else 0.1)


def overrun(order_id):
    """Ignore the timeout, and go on until a later attempt has taken effect."""
    end = time.monotonic() + 150
    late = True
    while late and time.monotonic() < end:
        with suppress(Exception):
            time.sleep(0.2)
            late = not Effect.objects.filter(order_id=order_id).exists()


def freeze(job):
    """Stop, with the worker, while the job's row is locked, as at the end of `commit()`."""
    Job.objects.select_for_update().get(pk=job.pk)
    for pid in (os.getppid(), os.getpid()):
        os.kill(pid, signal.SIGSTOP)
