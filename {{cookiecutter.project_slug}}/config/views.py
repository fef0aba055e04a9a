"""Pages that need no app: the first page in development, and error pages."""

import re
import sys
from pathlib import Path
from traceback import walk_tb

from django import db
from django.core import exceptions
from django.http import HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.middleware.csrf import REASON_NO_CSRF_COOKIE
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse

from config.servers import leave_replica
from config.settings import BASE_DIR

# Exceptions that the admin raises for a hand-typed URL.
BAD_VALUE = (LookupError, OverflowError, TypeError, ValueError)
BAD_VALUE += (db.DataError, db.NotSupportedError, db.ProgrammingError)
BAD_VALUE += (exceptions.FieldDoesNotExist, exceptions.ValidationError)
# What Postgres says about NUL in a text, and in JSON.
NUL = re.compile(r"NUL \(0x00\)|\\u0000")
# Django's own error pages read the form, which may raise these again.
BAD_FORM = (MultiPartParserError, exceptions.BadRequest, exceptions.SuspiciousOperation)


def welcome(request):
    """Say what to do next, in development, until an app has a page at `/`."""
    return render(request, "welcome.html")


def server_error(request):
    """Render 503 if the database fails or a queue is full, 400 for bad values, or else 500.

    A visitor who sent only part of the request gets 408, because that is not the site's fault.
    Django calls this `handler500` while it handles the exception. An exception's attribute
    `retry_after` becomes the header Retry-After.
    """
    exception = sys.exception()
    if isinstance(exception, UnreadablePostError):
        return render(None, "400.html", status=408)
    if isinstance(exception, BAD_FORM) or is_bad_address(request, exception):
        return render(None, "400.html", status=400)
    if isinstance(exception, (db.InterfaceError, db.OperationalError)) or leave_replica(exception):
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
    # Any other POST writes: an exception is a bug, such as a missing migration.
    match = request.resolver_match
    reads = request.method != "POST" or (match and match.view_name.endswith("_changelist"))
    reads = reads or isinstance(exception, exceptions.FieldDoesNotExist)  # named in the address
    in_admin = request.path.startswith(reverse("admin:index"))
    return (in_admin and reads and not is_ours(exception)) or NUL.search(str(exception))


def is_ours(exception):
    """Return whether code of the site's apps raised the exception, or called code that did."""
    files = [Path(frame.f_code.co_filename) for frame, _ in walk_tb(exception.__traceback__)]
    own = [file.relative_to(BASE_DIR).parts for file in files if file.is_relative_to(BASE_DIR)]
    return any(parts[0] != "config" and "site-packages" not in parts for parts in own)


def csrf_failure(request, reason=""):
    """Say why a form was refused. Django's own view shows the reason only on its own page."""
    context = {"reason": reason, "no_cookie": reason == REASON_NO_CSRF_COOKIE}
    return render(request, "403_csrf.html", context, status=403)


def unavailable(retry_after):
    """Return a 503 page that asks to try again after that many seconds."""
    headers = {"Retry-After": str(retry_after)}
    return HttpResponse(render_to_string("503.html"), status=503, headers=headers)
