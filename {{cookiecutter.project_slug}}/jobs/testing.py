"""For tests: TASKS = {"default": {"BACKEND": "jobs.testing.ImmediateBackend"}}."""

from dataclasses import dataclass

from jobs.backend import Backend, JobContext
from jobs.worker import perform


@dataclass(frozen=True, slots=True, kw_only=True)
class ImmediateContext(JobContext):
    """The worker's context, but `commit()` may run inside a test's transaction."""

    durable = False


class ImmediateBackend(Backend):
    """Runs a task at once where it is enqueued: no worker, no Redis, no retries.

    If the task raises, `enqueue` still returns: look at the result's `errors`.
    """

    context_class = ImmediateContext

    def enqueue(self, task, args, kwargs, **options):
        result = super().enqueue(task, args, kwargs, **options)
        result.refresh()
        return result

    def start(self, job):
        job.claim("test")
        job.retries = []
        perform(job, job.get_task())
