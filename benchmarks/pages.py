"""Two pages that both sides have, only for the benchmarks."""

from django.db import connection
from django.http import HttpResponse
from django.urls import path


def line(request):
    """Return a line. The cost is only what surrounds a view."""
    return HttpResponse("A line.\n")


def wait(request):
    """Wait 30 ms for Postgres."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.03)")
    return HttpResponse("A line.\n")


urlpatterns = [path("line/", line), path("wait/", wait)]
