import time
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.urls import reverse
from django.utils import timezone

from jobs import clock
from jobs.models import Job
from jobs.queue import COUNTS_KEY
from jobs.tests import tasks

pytestmark = pytest.mark.django_db(transaction=True)

HEALTH = reverse("jobs:health")


def test_health_is_good_while_the_clock_ticks_and_no_job_waits_long(client):
    tasks.add.enqueue(1)
    clock.tick()
    response = client.get(HEALTH)
    assert response.status_code == 200
    answer = response.json()
    assert 0 <= answer["last_tick_seconds"] < 60
    assert 0 <= answer["oldest_job_seconds"] < 60


def test_a_clock_that_never_ticked_raises_an_alarm(client):
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json() == {"last_tick_seconds": None, "oldest_job_seconds": 0}


def test_a_stopped_clock_raises_an_alarm(client):
    cache.set(COUNTS_KEY, {"at": time.time() - 90, "unfinished": {}})
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json()["last_tick_seconds"] >= 90


def test_a_job_that_no_worker_takes_raises_an_alarm(client):
    clock.tick()
    tasks.add.enqueue(1)
    Job.objects.update(due=timezone.now() - timedelta(minutes=11))
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json()["oldest_job_seconds"] >= 660


def test_a_missing_redis_raises_an_alarm(client, no_redis):
    assert client.get(HEALTH).status_code == 503


def test_clear_sessions_deletes_expired_sessions(work):
    from django.contrib.sessions.models import Session

    Session.objects.create(session_key="old", expire_date=timezone.now() - timedelta(days=1))
    Session.objects.create(session_key="new", expire_date=timezone.now() + timedelta(days=1))
    from jobs.tasks import clear_sessions

    clear_sessions.enqueue()
    work()
    assert Session.objects.get().session_key == "new"
