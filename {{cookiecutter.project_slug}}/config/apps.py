import os
import sys

from django.apps import AppConfig
from django.conf import settings
from rq.serializers import DefaultSerializer, JSONSerializer


class SiteConfig(AppConfig):
    """What the whole site needs, whichever apps it has."""

    name = "config"

    def ready(self):
        from config import checks  # noqa: F401  (registers them)

        # The dashboard names no serializer when it shows a busy worker: RQ's default, pickle, could
        # not read its job, and would run whatever code somebody put there.
        DefaultSerializer.dumps = JSONSerializer.dumps
        DefaultSerializer.loads = JSONSerializer.loads

        # RUN_MAIN marks the process that serves, as opposed to the one that watches the files.
        serves = os.environ.get("RUN_MAIN") == "true" or "--noreload" in sys.argv
        if settings.EMBEDDED and serves:
            from config import embedded

            embedded.start()
