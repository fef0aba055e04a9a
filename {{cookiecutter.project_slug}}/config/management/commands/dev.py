import os
import signal
import socket
import sys
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Migrates and starts the site for development, with Procfile.dev if REDIS_URL is set."

    def handle(self, **options):
        port = settings.PORT
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            text = f"Port {port} is busy: choose another, for example PORT={port + 1}."
            raise CommandError(text) from error
        call_command("migrate", verbosity=0)
        if settings.EMBEDDED:
            command = [sys.executable, "manage.py", "runserver", str(port)]
            os.execv(sys.executable, command)  # noqa: S606  (no shell)
        from honcho.command import main as honcho  # production has no honcho

        # honcho finds the programs that Procfile.dev names beside this Python.
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        os.environ["PORT"] = str(port)
        # If the terminal is closed, honcho would end alone, and leave its processes behind.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        # .env has been read already.
        sys.argv = ["honcho", "--procfile", "Procfile.dev", "--env", os.devnull, "start"]
        honcho()
