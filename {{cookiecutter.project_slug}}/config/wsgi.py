"""The WSGI application that gunicorn and runserver serve."""

import os
import sys

from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

django_application = get_wsgi_application()


def application(environ, start_response):
    """Let Django answer a request, unless its body's "charset" is not one for text, such as rot13.

    Such a request raises in Django before any middleware runs.
    """
    if content_type := environ.get("CONTENT_TYPE"):
        try:
            _, parameters = parse_header_parameters(content_type)
            b"x".decode(parameters.get("charset", "utf-8"), "replace")
        except (LookupError, ValueError):
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [b"unknown charset\n"]
    return django_application(environ, start_response)


# Management commands run the system checks; gunicorn does not.
from config.checks import check_environment  # noqa: E402  (needs the settings)

if errors := check_environment():
    sys.exit("\n".join(error.msg for error in errors))
