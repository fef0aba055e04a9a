import secrets
from uuid import uuid4

from django.db import connection, models
from django.utils import timezone

from tokens import conf


class LimitReached(Exception):
    """The visitor has as many tokens as allowed. The message says what to do."""


class TokenQuerySet(models.QuerySet):
    def of(self, visitor):
        """Return the visitor's tokens that have not expired, newest first, with one query.

        `visitor` is the UUID from their cookie, or None if they have no cookie.
        """
        if visitor is None:
            return self.none()
        return self.filter(visitor=visitor, created__gt=expiry())

    def expired(self):
        return self.filter(created__lte=expiry())

    def pending(self):
        return self.filter(state=Token.State.PENDING)

    def create_within_limits(self, visitor, **fields):
        """Create a token for the visitor, or raise LimitReached. Call it in a transaction."""
        lock(visitor)
        states = list(self.of(visitor).order_by().values_list("state", flat=True))
        if len(states) >= conf.LIMIT:
            raise LimitReached(f"You have {conf.LIMIT} tokens: delete one first.")
        pending = states.count(Token.State.PENDING)
        if fields.get("state") == Token.State.PENDING and pending >= conf.PENDING_LIMIT:
            raise LimitReached(f"{pending} of your tokens are still being made: wait for one.")
        return self.create(visitor=visitor, **fields)


class Token(models.Model):
    """A random token of one visitor. Visitors are known only by a random id in a cookie."""

    class State(models.TextChoices):
        PENDING = "pending"
        READY = "ready"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    visitor = models.UUIDField(editable=False)
    value = models.CharField(max_length=64, blank=True, editable=False)
    state = models.CharField(max_length=7, choices=State, default=State.PENDING, editable=False)
    job = models.UUIDField(null=True, editable=False)  # null if no job makes it
    created = models.DateTimeField(default=timezone.now, editable=False)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created"]
        indexes = [
            # For the visitor's list, in its order.
            models.Index(fields=["visitor", "-created"], name="token_visitor_created"),
            # For the purge, and the admin's list.
            models.Index(fields=["created"], name="token_created"),
            # For `tidy`, and the admin's filter. Small, because most tokens are ready.
            models.Index(
                fields=["state", "created"],
                name="token_unready",
                condition=~models.Q(state="ready"),
            ),
        ]

    def __str__(self):
        return str(self.pk)


def expiry():
    """Return the creation time of tokens that expire now."""
    return timezone.now() - conf.LIFETIME


def new_value():
    """Return 256 random bits as 64 hexadecimal digits.

    It can serve as a SECRET_KEY (Django's check W009 wants 50 characters), and needs no quotes in
    a shell, an env file or a URL.
    """
    return secrets.token_hex(32)


def lock(visitor):
    """Make the transactions of a visitor run one by one, so that the limits hold.

    SQLite needs no lock: it runs one writing transaction at a time (see config/settings.py).
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # Postgres takes a signed 64-bit number: the first 63 bits of the id. Two visitors who
            # share them would only wait for each other.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [visitor.int >> 65])
