class QueueFull(Exception):
    """The queue has as many unfinished jobs as it may have. A page that raises it answers 503."""

    retry_after = 10  # seconds


class Superseded(Exception):
    """The attempt was given up before it ended, so what it did is rolled back."""


class WorkerDied(Exception):
    """The attempt's worker died, or went on past its time."""


class Cancelled(Exception):
    """Somebody cancelled the job."""
