"""The pages of a site without apps: the first one in development, and errors."""

import sys

from django.db import InterfaceError, OperationalError
from django.shortcuts import render


def welcome(request):
    """Say what to do next, in development, as long as no app has a page at `/`."""
    return render(request, "welcome.html")


def server_error(request):
    """Render 503 when the database does not answer, 500 for every other exception.

    Django calls this `handler500` while the exception is being handled.
    """
    if isinstance(sys.exception(), (InterfaceError, OperationalError)):
        response = render(None, "503.html", status=503)
        response["Retry-After"] = "10"
        return response
    return render(None, "500.html", status=500)
