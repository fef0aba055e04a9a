import time
from contextlib import suppress

from django.conf import settings
from django.core.cache import cache
from django.db.models import F
from django.db.models.functions import Now
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from jobs.models import Job
from jobs.queue import COUNTS_KEY, COUNTS_LATE

# Seconds after which somebody should look at a waiting job.
LATE_JOB = 10 * 60


@require_safe
@never_cache
def health(request):
    """Return JSON with the age of the clock's last tick and of the oldest waiting job, in seconds.

    Answers 503 if either is too old. Use it for alerts, not for a load balancer: web must be
    able to go live while worker and clock are down, or no deploy could repair them.
    """
    tick = None
    with suppress(RedisError):
        if counts := cache.get(COUNTS_KEY):
            tick = max(0, round(time.time() - counts["at"]))
    waiting = [Job.objects.due(name).annotate(age=Now() - F("due")) for name in settings.RQ_QUEUES]
    first = [jobs.only("pk").first() for jobs in waiting]
    age = max([0, *(round(job.age.total_seconds()) for job in first if job)])
    late = tick is None or tick > COUNTS_LATE or age > LATE_JOB
    answer = {"last_tick_seconds": tick, "oldest_job_seconds": age}
    return JsonResponse(answer, status=503 if late else 200)
