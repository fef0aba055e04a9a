"""The admin's title, and the RQ dashboard in it."""

from functools import wraps

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404
from django.utils.functional import cached_property
from django_rq.admin import QueueAdmin
from django_rq.models import Dashboard
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError

from config.compat import SITE_NAME, csp_override
from config.views import unavailable

admin.site.site_title = admin.site.site_header = SITE_NAME

# The dashboard's pages have inline scripts and styles.
DASHBOARD_CSP = settings.SECURE_CSP | {
    "default-src": ["'self'"],
    "script-src": ["'self'", "'unsafe-inline'"],
    "style-src": ["'self'", "'unsafe-inline'"],
}

# Exceptions that django-rq raises for a missing object's URL.
MISSING = (AssertionError, ImproperlyConfigured, LookupError, NoSuchJobError, ValueError)


def protect(view):
    """Require the permission `django_rq.admin` for a view of the dashboard.

    django-rq itself only hides the link from other staff. It also raises if a queue, a job or a
    worker does not exist or an add-on is not installed: that becomes a 404.
    """

    @wraps(view)
    def wrapper(request, *args, **kwargs):
        if request.user.is_authenticated and not request.user.has_perm("django_rq.admin"):
            raise PermissionDenied
        try:
            return view(request, *args, **kwargs)
        except MISSING as error:
            raise Http404(str(error)) from error
        except RedisError:
            return unavailable(10)

    return csp_override(DASHBOARD_CSP)(wrapper)


admin.site.unregister(Dashboard)


@admin.register(Dashboard)
class DashboardAdmin(QueueAdmin):
    """The RQ dashboard, for those with its permission."""

    def has_add_permission(self, request):
        return False

    def get_object(self, request, object_id, from_field=None):
        """Return None: the dashboard's model has admin URLs, but no table."""

    def get_urls(self):
        urls = super().get_urls()
        for url in urls:
            url.callback = protect(url.callback)
        return urls


class BoundedPaginator(Paginator):
    """Ends a list after 1000 rows, because counting a million rows reads them all."""

    @cached_property
    def count(self):
        return self.object_list[:1000].count()
