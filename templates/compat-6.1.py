# ruff: noqa: F401  (other modules import these names from here)

from django.middleware.csp import ContentSecurityPolicyMiddleware
from django.tasks import signals, task
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist, TaskResultMismatch
from django.utils.json import normalize_json
from django.views.decorators.csp import csp_override


def mail_settings(backend, options):
    """Return Django's settings for a mail backend with these options."""
    return {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
