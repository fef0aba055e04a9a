"""Bare Django, the baseline of web: no middleware, no templates and no apps."""

import os
import secrets
from uuid import uuid4

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"


def empty(request):
    """Return an empty response."""
    return HttpResponse()


def insert(request):
    """Insert one token and redirect."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bare (id, visitor, value, state, created)"
            " VALUES (%s, %s, %s, 'ready', now())",
            [uuid4(), uuid4(), secrets.token_hex(32)],
        )
    return HttpResponseRedirect("/")


urlpatterns = [path("", empty), path("insert/", insert)]

application = get_wsgi_application()
