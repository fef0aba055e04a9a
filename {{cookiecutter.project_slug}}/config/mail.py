"""Mail: what EMAIL_URL means, and text to keep out of mail and logs."""

import logging
import re
import time
from urllib.parse import unquote, urlsplit

from config import compat

# For each scheme, the port and the encryption.
SMTP = {
    "smtp": (25, {}),
    "smtp+tls": (587, {"use_tls": True}),  # STARTTLS
    "smtps": (465, {"use_ssl": True}),  # TLS from the first byte
}

# The row that Postgres quotes at the end of an error message. Python indents exception groups.
DETAIL = re.compile(r"^[ |]*DETAIL:.*?(?=\n\n|\nTraceback |\n[ |]*\+-|\Z)", re.M | re.S)


def mail_settings(url):
    """Return Django's settings for the mail server at the URL; raise ValueError for a bad URL.

    The URL is `console:`, or like `smtp+tls://user:password@host:587`.
    """
    parts = urlsplit(url)
    if url == "console:":
        backend, options = "console", {}
    elif parts.scheme in SMTP and parts.hostname and not any(parts[2:]):
        port, encryption = SMTP[parts.scheme]
        backend = "smtp"
        options = encryption | {
            "host": parts.hostname,
            "port": parts.port or port,
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "timeout": 5,
        }
    else:
        raise ValueError("EMAIL_URL must be like smtp+tls://user:password@host:587")
    return compat.mail_settings(f"django.core.mail.backends.{backend}.EmailBackend", options)


class Formatter(logging.Formatter):
    """Leaves out rows that Postgres quotes in its errors, because they may hold secrets.

    Only the first line of a record starts with a time, whatever a visitor has sent. Times are in
    UTC, in the same format as in gunicorn.conf.py and Caddy.
    """

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record):
        text = DETAIL.sub("DETAIL: left out", super().format(record))
        return "\n    ".join(text.splitlines())
