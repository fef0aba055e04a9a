"""URLs of the site. `/healthz` and `/readyz` are answered by config/middleware.py."""

from django.conf import settings
from django.contrib import admin
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path

urlpatterns = [
    path("", include("tokens.urls")),
    path("jobs/", include("jobs.urls")),
    path("admin/", admin.site.urls),
    # Where browsers look for it on pages that name none, the admin's say.
    path("favicon.ico", lambda request: redirect(static("config/favicon.svg"))),
]

handler500 = "config.views.server_error"

if settings.DEBUG:
    from debug_toolbar.toolbar import debug_toolbar_urls

    urlpatterns += debug_toolbar_urls()
