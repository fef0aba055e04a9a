import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from django.core.management.base import BaseCommand

from jobs import clock

# Touched after each tick that worked; the container's health check looks at its age.
HEARTBEAT = Path(tempfile.gettempdir()) / "clock-heartbeat"


class Command(BaseCommand):
    help = "Enqueues due jobs, lost jobs and SCHEDULE's tasks, and purges old jobs, until stopped."

    def handle(self, **options):
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            if clock.tick():
                with suppress(OSError):  # as in jobs/worker.py
                    HEARTBEAT.touch()
            stop.wait(clock.INTERVAL)
