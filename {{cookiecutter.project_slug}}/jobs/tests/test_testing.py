"""The backend for the owner's tests."""

import pytest
from django.contrib.auth.models import Group
from django.db import transaction

from config.compat import TaskResultStatus
from jobs.models import Job
from jobs.tests import tasks

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _immediate(settings):
    settings.TASKS = {"default": {"BACKEND": "jobs.testing.ImmediateBackend"}}


def test_a_task_runs_at_once_where_it_is_enqueued():
    result = tasks.add.enqueue(1, second=2)
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == 3


def test_a_task_that_raises_fails_without_a_retry():
    result = tasks.fail.enqueue()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is ValueError
    assert Job.objects.get().attempts == 1


def test_the_context_works_as_in_a_worker():
    tasks.hooks["hook"] = lambda context: context.progress(100 * context.attempt)
    with transaction.atomic():
        assert tasks.write.enqueue("name").return_value == "name"
        assert tasks.call_back.enqueue("hook").status == TaskResultStatus.SUCCESSFUL
    assert Group.objects.count() == 1
