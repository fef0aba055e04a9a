"""Redis and a worker inside `runserver`, for development with nothing installed but Python.

Used when DEBUG is on and REDIS_URL is not set; never imported in production.
"""

import threading
import time

from django.apps import apps
from django_rq import get_worker
from fakeredis import FakeRedisConnection, FakeServer
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker

# One server for all threads: each has a connection pool of its own.
CACHE_OPTIONS = {"connection_class": FakeRedisConnection, "server": FakeServer()}


class ThreadWorker(SimpleWorker):
    """An RQ worker that runs in a thread, where signals cannot be handled."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self):
        pass

    def subscribe(self):
        pass


def start():
    """Start a worker and a clock, as daemon threads of this process."""
    threading.Thread(target=_work, name="worker", daemon=True).start()
    threading.Thread(target=_tick, name="clock", daemon=True).start()


def _work():
    apps.ready_event.wait()
    get_worker(worker_class=ThreadWorker, serializer="json").work(logging_level="WARNING")


def _tick():
    apps.ready_event.wait()
    from tokens import clock  # imports models

    while True:
        clock.tick()
        time.sleep(clock.INTERVAL)
