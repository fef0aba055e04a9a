"""The WSGI application that gunicorn and runserver serve."""

import os
import sys

from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

from config.checks import check_environment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

CHARSETS = {"", "ascii", "us-ascii", "utf8", "utf-8", "latin-1", "iso-8859-1"}

django_application = get_wsgi_application()


def application(environ, start_response):
    """Let Django answer a request, unless its body has an odd charset.

    With rot13, Django raises before any middleware runs. Decoding punycode takes minutes. Python
    keeps every unknown name in memory forever.
    """
    header = environ.get("CONTENT_TYPE", "")
    # An asterisk marks a parameter with a charset of its own (RFC 2231).
    charset = "*" if "*" in header else parse_header_parameters(header)[1].get("charset", "")
    if charset.lower() not in CHARSETS:
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"unknown charset: use UTF-8\n"]
    return django_application(environ, start_response)


# Management commands run the system checks; gunicorn does not.
if errors := check_environment():
    sys.exit("\n".join(error.msg for error in errors))
