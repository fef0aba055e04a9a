import signal
import tempfile
import threading
from pathlib import Path

from django.core.management.base import BaseCommand

from jobs import clock

# Touched with each tick that worked; the container's health check looks at its age.
HEARTBEAT = Path(tempfile.gettempdir()) / "clock-heartbeat"


class Command(BaseCommand):
    help = "Carries due and lost jobs, enqueues SCHEDULE's tasks and purges, until it is stopped."

    def handle(self, **options):
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            if clock.tick():
                HEARTBEAT.touch()
            stop.wait(clock.INTERVAL)
