import os
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
            raise CommandError(
                f"Port {port} is busy: choose another, for example PORT={port + 1}."
            ) from error
        call_command("migrate", verbosity=0)
        python = Path(sys.executable)
        if settings.EMBEDDED:
            command = [python, "manage.py", "runserver", str(port)]
        else:
            options = ["--procfile", "Procfile.dev", "--env", os.devnull]  # .env has been read
            command = [python, "-m", "honcho", *options, "start"]
        # honcho finds the programs that Procfile.dev names beside this Python.
        path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = os.environ | {"PATH": path, "PORT": str(port)}
        os.execve(python, [str(part) for part in command], environment)  # noqa: S606  (no shell)
