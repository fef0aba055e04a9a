"""Health checks, static files, limits, and a request id in every log line."""

import logging
import re
from contextvars import ContextVar
from functools import cache
from secrets import token_hex

from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage

from config.servers import check_database, check_redis

logger = logging.getLogger(__name__)

request_id = ContextVar("request_id", default="-")

# The hash that ManifestStaticFilesStorage adds to a name: site.0123456789ab.css.
HASH = re.compile(r"\.[0-9a-f]{12}(?=\.[^./]*$|$)")

# The ids that Heroku's router accepts from outside: 20 to 200 of these characters.
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{20,200}")


class HealthMiddleware:
    """Answer `/healthz` (the process is alive) and `/readyz` (database and Redis take writes).

    Comes before all other middleware, because a probe has no valid Host header and no HTTPS.
    """

    draining = False  # set by gunicorn.conf.py when the process is about to stop

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.path == "/healthz":
            response = answer("stopping" if self.draining else "")
            response._has_been_logged = True  # or Django would log an error, which is mailed
            return response
        if request.path == "/readyz":
            return self.ready()
        return self.get_response(request)

    def ready(self):
        """Return 200, or 503 with the names of the failed servers."""
        failed = []
        for name, ask in (("database", check_database), ("redis", check_redis)):
            try:
                ask()
            except Exception:
                logger.exception("%s does not accept writes", name)
                failed.append(name)
        return answer(failed and f"no answer from: {', '.join(failed)}")


def answer(trouble):
    status = 503 if trouble else 200
    return HttpResponse(f"{trouble or 'ok'}\n", content_type="text/plain", status=status)


class StaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Caches the URLs of files: computing them takes a seventh of a page's time."""

    url = cache(CompressedManifestStaticFilesStorage.url)


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise, but it answers requests for another version's files with its own.

    During a deploy, a page from one version may ask the other version for its stylesheet. The
    answer does not match the hash in the name, so it must not be cached.
    """

    def __call__(self, request):
        path = request.path_info
        if path.startswith(self.static_prefix) and path not in self.files:
            name = HASH.sub("", path.removeprefix(self.static_prefix))
            hashed = getattr(staticfiles_storage, "hashed_files", {}).get(name, "")
            if own := self.files.get(self.static_prefix + hashed):
                response = self.serve(own, request)
                response["Cache-Control"] = "no-cache"
                return response
        return super().__call__(request)


class RequestIDMiddleware:
    """Take the request's id from X-Request-ID or make one, and send it back."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        value = given if REQUEST_ID.fullmatch(given) else token_hex(16)
        request_id.set(value)
        response = self.get_response(request)
        response["X-Request-ID"] = value
        return response


@receiver(request_finished)
def forget_request_id(**kwargs):
    """Forget the request's id. The middleware cannot: Django logs a 404 after it has returned."""
    request_id.set("-")


class BodyLimitMiddleware:
    """Refuse a body longer than DATA_UPLOAD_MAX_MEMORY_SIZE before any of it is read.

    Django's own limit of that name does not count files. Those would go to /tmp, which is memory in
    production.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if int(request.META.get("CONTENT_LENGTH") or 0) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return HttpResponse("too long\n", content_type="text/plain", status=413)
        return self.get_response(request)


class RequestIDFilter(logging.Filter):
    """Give each log record the `request_id` of its request, or `-` outside requests."""

    def filter(self, record):
        record.request_id = request_id.get()
        return True
