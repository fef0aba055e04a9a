"""Error pages that Django's defaults do not cover."""

import sys

from django.db import InterfaceError, OperationalError
from django.middleware.csrf import REASON_NO_CSRF_COOKIE
from django.shortcuts import render


def server_error(request):
    """Render 503 when the database does not answer, 500 for every other exception.

    Django calls this `handler500` while the exception is being handled.
    """
    if isinstance(sys.exception(), (InterfaceError, OperationalError)):
        response = render(None, "503.html", status=503)
        response["Retry-After"] = "10"
        return response
    return render(None, "500.html", status=500)


def csrf_failure(request, reason=""):
    """Say why a form was refused. Django's own view gives the reason to its own page only."""
    context = {"reason": reason, "no_cookie": reason == REASON_NO_CSRF_COOKIE}
    return render(request, "403_csrf.html", context, status=403)
