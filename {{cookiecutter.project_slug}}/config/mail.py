"""Mail: what EMAIL_URL means, and what no mail and no log may say."""

import logging
import re
from urllib.parse import unquote, urlsplit

import django

# Scheme -> the port, and how the connection is encrypted.
SMTP = {
    "smtp": (25, {}),
    "smtp+tls": (587, {"use_tls": True}),  # STARTTLS
    "smtps": (465, {"use_ssl": True}),  # TLS from the first byte
}

# Where Postgres quotes a row in its error, up to the end of the error.
DETAIL = re.compile(r"^DETAIL:.*?(?=\n\n|\nTraceback |\Z)", re.MULTILINE | re.DOTALL)


def mail_settings(url):
    """Return Django's settings for sending mail as the URL says; raise ValueError if it says none.

    The URL is `console:` or like `smtp+tls://user:password@host:587`. Django 6.1 calls the settings
    MAILERS, older ones EMAIL_….
    """
    parts = urlsplit(url)
    if url == "console:":
        backend, options = "console", {}
    elif parts.scheme in SMTP and parts.hostname:
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
    backend = f"django.core.mail.backends.{backend}.EmailBackend"
    before = {"username": "HOST_USER", "password": "HOST_PASSWORD"}
    return (
        {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
        if django.VERSION >= (6, 1)
        else {"EMAIL_BACKEND": backend}
        | {f"EMAIL_{before.get(name, name.upper())}": value for name, value in options.items()}
    )


class Formatter(logging.Formatter):
    """Leaves out the rows that Postgres quotes in its errors: they may hold a token or worse."""

    def format(self, record):
        return DETAIL.sub("DETAIL: left out", super().format(record))
