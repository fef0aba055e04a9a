import os
import sys

from django.apps import AppConfig
from django.conf import settings

from config.compat import signals


class JobsConfig(AppConfig):
    name = "jobs"

    def ready(self):
        from jobs import schedule  # noqa: F401  (registers its check)

        # These log two lines for each attempt. jobs/worker.py logs one, which says more.
        signals.task_started.disconnect(signals.log_task_started)
        signals.task_finished.disconnect(signals.log_task_finished)

        # RUN_MAIN marks the process that serves requests, not the one that watches the files.
        serves = os.environ.get("RUN_MAIN") == "true" or "--noreload" in sys.argv
        if settings.EMBEDDED and serves:
            from jobs import embedded

            embedded.start()
