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

# Seconds after which somebody should look.
LATE_TICK = 60
LATE_JOB = 10 * 60


@require_safe
@never_cache
def health(request):
    """Say in JSON how old the clock's last tick and the oldest waiting job are, in seconds.

    503 when either is too old: for an alarm. Not for a load balancer, whose /readyz must not
    depend on worker and clock, or no deploy could repair them.
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
