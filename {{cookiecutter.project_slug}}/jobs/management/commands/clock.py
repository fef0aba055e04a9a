import signal
import threading

from django.core.management.base import BaseCommand

from jobs import clock
from jobs.worker import beat


class Command(BaseCommand):
    help = "Enqueues due jobs, lost jobs and SCHEDULE's tasks, and purges old jobs, until stopped."

    def handle(self, **options):
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            if clock.tick():
                beat("clock")
            stop.wait(clock.INTERVAL)
