"""Pages that need no app: the first page in development, and error pages."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpResponse, UnreadablePostError
from django.shortcuts import render
from django.template.loader import render_to_string


def welcome(request):
    """Say what to do next, in development, until an app has a page at `/`."""
    return render(request, "welcome.html")


def server_error(request):
    """Render 503 when the database does not answer or a queue is full, 500 for other exceptions.

    A visitor who sent only a part of the request gets 408: that is no error of the site's. Django
    calls this `handler500` while the exception is being handled. One that has an attribute
    `retry_after` says after how many seconds to try again.
    """
    exception = sys.exception()
    if isinstance(exception, UnreadablePostError):
        return render(None, "400.html", status=408)
    if isinstance(exception, (InterfaceError, OperationalError)):
        return unavailable(10)
    if retry_after := getattr(exception, "retry_after", None):
        return unavailable(retry_after)
    return render(None, "500.html", status=500)


def unavailable(retry_after):
    """Return a 503 page that asks to try again after that many seconds."""
    headers = {"Retry-After": str(retry_after)}
    return HttpResponse(render_to_string("503.html"), status=503, headers=headers)
