"""Mail: what EMAIL_URL means, and errors mailed to the admins."""

import logging
import re
import time
import traceback
from hashlib import sha256
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings
from django.core.cache import cache
from django.core.mail import mail_admins
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

# Scheme -> the port, and how the connection is encrypted.
SMTP = {
    "smtp": (25, {}),
    "smtp+tls": (587, {"use_tls": True}),  # STARTTLS
    "smtps": (465, {"use_ssl": True}),  # TLS from the first byte
}

# Where Postgres quotes a row in its error, up to the end of the error.
DETAIL = re.compile(r"^DETAIL:.*?(?=\n\n|\nTraceback |\Z)", re.MULTILINE | re.DOTALL)

# Seconds that the same error is not mailed again.
QUIET = 10 * 60


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
    """Leaves out the rows that Postgres quotes in its errors: they may hold a token or worse.

    The time is UTC, in the form that gunicorn.conf.py and Caddy use too.
    """

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record):
        return DETAIL.sub("DETAIL: left out", super().format(record))


class AdminEmailHandler(logging.Handler):
    """Mails errors to ADMINS as they are logged, with the traceback, each one once in a while.

    Django's handler of that name mails every time, and adds forms, cookies and settings.
    """

    quiet_until = 0  # while the cache is down

    def emit(self, record):
        if not settings.ADMINS or not self.is_news(record):
            return
        subject = f"{record.levelname}: {record.getMessage()}".splitlines()[0][:200]
        try:
            mail_admins(subject, self.format(record))
        except Exception as error:
            # As a warning: an error would be mailed.
            logger.warning('mail="%s" outcome="not sent: %s"', subject, error)

    def is_news(self, record):
        """Return whether this error was not mailed lately; without a cache, whether none was."""
        where = [record.pathname, record.lineno]
        if record.exc_info:
            where += traceback.format_tb(record.exc_info[2])
        try:
            return cache.add(f"mailed:{sha256(str(where).encode()).hexdigest()}", 1, QUIET)
        except RedisError:
            news = time.monotonic() > self.quiet_until
            if news:
                self.quiet_until = time.monotonic() + QUIET
            return news
