import signal
import tempfile
import threading
from pathlib import Path

from django.core.management.base import BaseCommand

from tokens import clock

# Touched with each tick; the health check of the container looks at its age.
HEARTBEAT = Path(tempfile.gettempdir()) / "clock-heartbeat"


class Command(BaseCommand):
    help = "Enqueues due retries and lost jobs and purges expired tokens, until it is stopped."

    def handle(self, **options):
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            clock.tick()
            HEARTBEAT.touch()
            stop.wait(clock.INTERVAL)
