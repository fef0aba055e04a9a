class QueueFull(Exception):
    """The queue has as many unfinished jobs as allowed. A page that raises this answers 503."""

    retry_after = 10  # seconds


class Superseded(Exception):
    """The attempt was given up before it ended, so its writes are rolled back."""


class WorkerDied(Exception):
    """The attempt's worker died, or the attempt took too long."""


class Cancelled(Exception):
    """Somebody cancelled the job."""
