"""The same site written plainly, in one file: `startproject`'s settings, WhiteNoise and RQ.

It lists the newest ten tokens below three links, and changes things by GET. `gunicorn plain` serves
it, and `python -c "import plain; plain.work()"` runs its jobs.
"""

import secrets
from pathlib import Path
from uuid import uuid4

from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from environs import Env

env = Env()

settings.configure(
    SECRET_KEY=env.str("SECRET_KEY"),
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "django_rq",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "whitenoise.middleware.WhiteNoiseMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    ROOT_URLCONF="plain",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [Path(__file__).parent / "templates"],
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        },
    ],
    DATABASES={"default": env.dj_db_url("DATABASE_URL", conn_max_age=600)},
    RQ_QUEUES={"default": {"URL": env.str("REDIS_URL")}},
    STATIC_URL="static/",
    STATIC_ROOT=env.str("STATIC_ROOT"),
    STATICFILES_DIRS=[env.str("STATIC_SOURCE")],
    STORAGES={
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    },
)
application = get_wsgi_application()

# All of these need the settings.
from django.contrib import admin
from django.db import models
from django.shortcuts import redirect, render
from django.urls import path
from django.utils import timezone
from django_rq import get_queue
from pages import urlpatterns as pages


class Token(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid4)
    value = models.CharField(max_length=64, default="in the making")
    created = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        app_label = "plain"


def home(request):
    return render(request, "home.html", {"tokens": Token.objects.order_by("-created")[:10]})


def generate(request):
    Token.objects.create(value=secrets.token_hex(32))
    return redirect("home")


def generate_in_background(request):
    get_queue().enqueue(make, str(Token.objects.create().pk))
    return redirect("home")


def delete_all(request):
    Token.objects.all().delete()
    return redirect("home")


def make(token_id):
    """The job: make the value of a token."""
    Token.objects.filter(pk=token_id).update(value=secrets.token_hex(32))


def work():
    call_command("rqworker")


urlpatterns = [
    *pages,
    path("", home, name="home"),
    path("generate/", generate, name="generate"),
    path("generate-in-background/", generate_in_background, name="generate_in_background"),
    path("delete-all/", delete_all, name="delete_all"),
    path("admin/", admin.site.urls),
]
