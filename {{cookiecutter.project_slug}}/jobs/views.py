import time

from django.conf import settings
from django.core.cache import cache
from django.db.models import F
from django.db.models.functions import Now
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from jobs.models import Job
from jobs.queue import COUNTS_KEY

# After this many seconds, somebody should take a look.
LATE_TICK = 60
LATE_JOB = 10 * 60


@require_safe
@never_cache
def health(request):
    """Return JSON with the age of the clock's last tick and of the oldest waiting job, in seconds.

    Answers 503 if either is too old. Point an alarm at it, but not a load balancer: web must be
    able to go live while worker and clock are down, or no deploy could repair them.
    """
    try:
        counts = cache.get(COUNTS_KEY)
    except RedisError:
        counts = None
    tick = None if counts is None else max(0, round(time.time() - counts["at"]))
    ages = [0]
    for name in settings.RQ_QUEUES:
        job = Job.objects.due(name).annotate(age=Now() - F("due")).only("pk").first()
        if job:
            ages.append(round(job.age.total_seconds()))
    late = tick is None or tick > LATE_TICK or max(ages) > LATE_JOB
    answer = {"last_tick_seconds": tick, "oldest_job_seconds": max(ages)}
    return JsonResponse(answer, status=503 if late else 200)
