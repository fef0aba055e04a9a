import os

from django.apps import AppConfig
from django.conf import settings


class TokensConfig(AppConfig):
    name = "tokens"

    def ready(self):
        from config import checks  # noqa: F401  (registers them)

        # RUN_MAIN marks the process that serves, as opposed to the one that watches the files.
        if settings.EMBEDDED and os.environ.get("RUN_MAIN") == "true":
            from config import embedded

            embedded.start()
