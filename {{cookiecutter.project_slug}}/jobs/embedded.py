"""A worker and a clock inside `runserver`, for development with nothing installed but Python.

Used when DEBUG is on and REDIS_URL is not set. Production never imports it.
"""

import threading
import time

from django.apps import apps
from django.conf import settings
from django_rq import get_worker
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker


class ThreadWorker(SimpleWorker):
    """An RQ worker that runs in a thread."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self):
        """Do nothing: only the main thread may handle signals, and RQ has no option for that."""

    def subscribe(self):
        """Do nothing: with fakeredis, nobody can send a command."""


def start():
    """Start a worker and a clock, as daemon threads of this process."""
    threading.Thread(target=_work, name="worker", daemon=True).start()
    threading.Thread(target=_tick, name="clock", daemon=True).start()


def _work():
    apps.ready_event.wait()
    worker = get_worker(*settings.RQ_QUEUES, worker_class=ThreadWorker, serializer="json")
    worker.work(logging_level="WARNING")


def _tick():
    apps.ready_event.wait()
    from jobs import clock  # imports models

    while True:
        clock.tick()
        time.sleep(clock.INTERVAL)
