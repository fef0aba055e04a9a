"""The worker that Docker runs: RQ's own, with a sign of life for the container's health check."""

import tempfile
from pathlib import Path

import rq

# Touched with each heartbeat; the health check looks at its age.
HEARTBEAT = Path(tempfile.gettempdir()) / "worker-heartbeat"


class Worker(rq.Worker):
    """Beats every 30 s while a job runs, and 15 s before its `--worker-ttl` while idle.

    Its registration in Redis would not do: a Redis that was emptied does not get it back.
    """

    def heartbeat(self, *args, **kwargs):
        super().heartbeat(*args, **kwargs)
        HEARTBEAT.touch()
