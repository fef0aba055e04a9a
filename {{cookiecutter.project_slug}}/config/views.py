"""The pages of a site without apps: the first one in development, and errors."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string


def welcome(request):
    """Say what to do next, in development, as long as no app has a page at `/`."""
    return render(request, "welcome.html")


def server_error(request):
    """Render 503 when the database does not answer or a queue is full, 500 for other exceptions.

    Django calls this `handler500` while the exception is being handled. One that has an attribute
    `retry_after` says after how many seconds to try again.
    """
    exception = sys.exception()
    if isinstance(exception, (InterfaceError, OperationalError)):
        return unavailable(10)
    if retry_after := getattr(exception, "retry_after", None):
        return unavailable(retry_after)
    return render(None, "500.html", status=500)


def unavailable(retry_after):
    """Return the page that asks to try again, and its header, in seconds."""
    headers = {"Retry-After": str(retry_after)}
    return HttpResponse(render_to_string("503.html"), status=503, headers=headers)
