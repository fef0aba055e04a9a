"""Pages that need no app: the first page in development, and error pages."""

import sys
from pathlib import Path
from traceback import walk_tb

from django.conf import settings
from django.core.exceptions import (
    BadRequest,
    FieldDoesNotExist,
    SuspiciousOperation,
    ValidationError,
)
from django.db import (
    DataError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from django.http import HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.middleware.csrf import REASON_NO_CSRF_COOKIE
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse

from config.servers import leave_replica

# What the admin raises for an address that somebody has typed.
BAD_VALUE = (
    DataError,
    FieldDoesNotExist,
    LookupError,
    NotSupportedError,
    OverflowError,
    ProgrammingError,
    TypeError,
    ValidationError,
    ValueError,
)


def welcome(request):
    """Say what to do next, in development, until an app has a page at `/`."""
    return render(request, "welcome.html")


def server_error(request):
    """Render 503 when the database fails or a queue is full, 500 for other exceptions.

    A visitor who sent only part of the request gets 408, because that is not the site's fault.
    Django calls this `handler500` while it handles the exception. An exception's attribute
    `retry_after` is after how many seconds to try again.
    """
    exception = sys.exception()
    if isinstance(exception, UnreadablePostError):
        return render(None, "400.html", status=408)
    # Django's own error pages read the form, which may raise these again.
    if isinstance(exception, (BadRequest, MultiPartParserError, SuspiciousOperation)):
        return render(None, "400.html", status=400)
    if is_bad_address(request, exception):
        return render(None, "400.html", status=400)
    if isinstance(exception, (InterfaceError, OperationalError)) or leave_replica(exception):
        return unavailable(10)
    if retry_after := getattr(exception, "retry_after", None):
        return unavailable(retry_after)
    return render(None, "500.html", status=500)


def is_bad_address(request, exception):
    """Return whether a bad value in the request caused the exception.

    The admin does not check every value: a year with nine digits raises. Postgres refuses NUL
    everywhere. Django logs both as warnings, with their traceback.
    """
    if not isinstance(exception, BAD_VALUE):
        return False
    in_admin = request.path.startswith(reverse("admin:index")) and not is_ours(exception)
    return in_admin or "NUL (0x00)" in str(exception)


def is_ours(exception):
    """Return whether code of one of the site's apps raised the exception, or called what did."""
    files = [Path(frame.f_code.co_filename) for frame, _ in walk_tb(exception.__traceback__)]
    return any(
        file.is_relative_to(settings.BASE_DIR) and not {"config", "site-packages"} & set(file.parts)
        for file in files
    )


def csrf_failure(request, reason=""):
    """Say why a form was refused. Django's own view shows the reason only on its own page."""
    context = {"reason": reason, "no_cookie": reason == REASON_NO_CSRF_COOKIE}
    return render(request, "403_csrf.html", context, status=403)


def unavailable(retry_after):
    """Return a 503 page that asks to try again after that many seconds."""
    headers = {"Retry-After": str(retry_after)}
    return HttpResponse(render_to_string("503.html"), status=503, headers=headers)
