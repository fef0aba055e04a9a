"""Error pages that Django's defaults do not cover."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpResponse
from django.middleware.csrf import REASON_NO_CSRF_COOKIE
from django.shortcuts import render
from django.template.loader import render_to_string

from config.servers import leave_replica


def server_error(request):
    """Render 503 when the database fails or a queue is full, 500 for other exceptions.

    Django calls this `handler500` while the exception is being handled. One that has an attribute
    `retry_after` says after how many seconds to try again.
    """
    exception = sys.exception()
    if isinstance(exception, (InterfaceError, OperationalError)) or leave_replica(exception):
        return unavailable(10)
    if retry_after := getattr(exception, "retry_after", None):
        return unavailable(retry_after)
    return render(None, "500.html", status=500)


def csrf_failure(request, reason=""):
    """Say why a form was refused. Django's own view gives the reason to its own page only."""
    context = {"reason": reason, "no_cookie": reason == REASON_NO_CSRF_COOKIE}
    return render(request, "403_csrf.html", context, status=403)


def unavailable(retry_after):
    """Return the page that asks to try again, and its header, in seconds."""
    headers = {"Retry-After": str(retry_after)}
    return HttpResponse(render_to_string("503.html"), status=503, headers=headers)
