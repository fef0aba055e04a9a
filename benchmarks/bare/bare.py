"""The baselines: the least that Django, RQ and one table can do. One file is the whole project."""

import os
import time

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": os.environ.get("REDIS_URL", ""),
        }
    },
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": os.environ.get("POSTGRES_PORT"),
            "USER": "postgres",
            "NAME": "postgres",
            "CONN_MAX_AGE": 600,
        }
    },
    MIDDLEWARE=[],
    ROOT_URLCONF="bare",
    SECRET_KEY="bare",
)
django.setup()


def empty(request):
    """Return an empty response."""
    return HttpResponse()


def insert(request):
    """Insert one row and redirect."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bare (value) VALUES (%s)", [os.urandom(32).hex()])
    return HttpResponseRedirect("/")


def job():
    """Insert one row, and say when, as the site's job does."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bare (value) VALUES (%s)", [str(time.time())])


urlpatterns = [path("", empty), path("insert/", insert)]

application = get_wsgi_application()
