"""The WSGI application that gunicorn and runserver serve."""

import codecs
import os
import sys

from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

CHARSETS = {"ascii", "iso8859-1", "utf-8"}

django_application = get_wsgi_application()


def application(environ, start_response):
    """Let Django answer a request, unless its body has an odd charset.

    With rot13, Django raises before any middleware runs. Decoding punycode takes minutes.
    """
    try:
        _, parameters = parse_header_parameters(environ.get("CONTENT_TYPE", ""))
        known = codecs.lookup(parameters.get("charset", "utf-8")).name in CHARSETS
    except (LookupError, ValueError):
        known = False
    if not known:
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"unknown charset: use UTF-8\n"]
    return django_application(environ, start_response)


# Management commands run the system checks; gunicorn does not.
from config.checks import check_environment  # noqa: E402  (needs the settings)

if errors := check_environment():
    sys.exit("\n".join(error.msg for error in errors))
