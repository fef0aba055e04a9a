"""URLs of the site. `/healthz` and `/readyz` are answered by config/middleware.py."""

from django.conf import settings
from django.contrib import admin
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path

from config.views import welcome
from jobs.views import health

urlpatterns = [
    path("", include("tokens.urls")),
    path("jobs/health/", health, name="jobs-health"),
    path("admin/", admin.site.urls),
    # Browsers look for it here on pages that name no icon, such as the admin's.
    path("favicon.ico", lambda request: redirect(static("config/favicon.svg"))),
]

handler500 = "config.views.server_error"

if settings.DEBUG:
    urlpatterns += [
        path("", welcome),  # until one of your apps has a page at /
        path("__debug__/", include("debug_toolbar.urls")),
    ]
