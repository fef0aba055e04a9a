"""Two pages that both sides have, for the benchmarks alone."""

from django.db import connection
from django.http import HttpResponse
from django.urls import path


def line(request):
    """Return a line, so that all it costs is what is around a view."""
    return HttpResponse("A line.\n")


def wait(request):
    """Wait 30 ms for Postgres."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.03)")
    return HttpResponse("A line.\n")


urlpatterns = [path("line/", line), path("wait/", wait)]
