"""Errors in the log are mailed to the admins, by a worker."""

import logging
import time
import traceback
from hashlib import sha256

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

# Seconds before the same error is mailed again.
QUIET = 10 * 60


class AdminEmailHandler(logging.Handler):
    """Mails each logged error and its traceback to ADMINS, at most once in QUIET seconds.

    Django's handler of that name mails every time, and adds forms, cookies and settings. Here a
    worker sends the mail: sending can take seconds, and on your own server only workers can reach
    the mail server.
    """

    quiet_until = 0  # while the cache is down

    def handle(self, record):
        """Emit the record without the handler's lock: `emit` may wait for the database."""
        if self.filter(record):
            self.emit(record)

    def emit(self, record):
        subject = record.levelname
        try:
            if settings.ADMINS and self.is_news(record):
                # Logging is set up before these can be imported.
                from jobs.models import TRACEBACK_LENGTH, storable
                from jobs.tasks import mail_admins

                subject = f"{subject}: {record.getMessage()}".splitlines()[0][:200]
                mail = [storable(subject), storable(self.format(record)[-TRACEBACK_LENGTH:])]
                with transaction.atomic():  # a failure must not break the caller's transaction
                    mail_admins.get_backend().enqueue(mail_admins, mail, {}, bounded=False)
        except Exception as error:
            # A warning, because an error would be mailed.
            logger.warning('mail="%s" outcome="not sent: %s"', subject, error)

    def is_news(self, record):
        """Return whether to mail this error. Without Redis, all errors count as one."""
        # Django logs every answer of 500 or more from the same line.
        match = getattr(getattr(record, "request", None), "resolver_match", None)
        where = [record.pathname, record.lineno]
        where += [getattr(record, "task", ""), getattr(match, "route", "")]
        if record.exc_info:
            where += traceback.format_tb(record.exc_info[2])
        try:
            return cache.add(f"mailed:{sha256(str(where).encode()).hexdigest()}", 1, QUIET)
        except RedisError:
            news = time.monotonic() > self.quiet_until
            if news:
                self.quiet_until = time.monotonic() + QUIET
            return news
