"""Error pages that Django's defaults do not cover."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import UnreadablePostError
from django.shortcuts import render


def server_error(request):
    """Render 503 when the database does not answer, 500 for every other exception.

    A visitor who sent only a part of the request gets 408: that is no error of the site's. Django
    calls this `handler500` while the exception is being handled.
    """
    if isinstance(sys.exception(), UnreadablePostError):
        return render(None, "400.html", status=408)
    if isinstance(sys.exception(), (InterfaceError, OperationalError)):
        response = render(None, "503.html", status=503)
        response["Retry-After"] = "10"
        return response
    return render(None, "500.html", status=500)
