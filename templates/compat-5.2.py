# ruff: noqa: F401  (other modules import these names from here)

import django_tasks.checks  # registers the check of TASKS
from csp.decorators import csp as csp_override
from csp.middleware import CSPMiddleware as ContentSecurityPolicyMiddleware
from django_tasks import signals, task
from django_tasks.backends.base import BaseTaskBackend
from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
from django_tasks.exceptions import InvalidTaskError as InvalidTask
from django_tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
from django_tasks.utils import normalize_json


def mail_settings(backend, options):
    """Return Django's settings for a mail backend with these options, which Django 6.1 renames."""
    before = {"username": "HOST_USER", "password": "HOST_PASSWORD"}
    renamed = {f"EMAIL_{before.get(name, name.upper())}": options[name] for name in options}
    return {"EMAIL_BACKEND": backend} | renamed
