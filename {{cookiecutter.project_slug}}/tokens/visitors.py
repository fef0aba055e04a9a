"""Who is asking: a random id in a signed cookie, apart from Django's sessions.

Session keys change at login and sessions are flushed at logout; tokens should survive both.
"""

from uuid import UUID

from django.conf import settings

SALT = "tokens.visitor"
MAX_AGE = 60 * 60 * 24 * 30  # seconds; renewed with each token


def cookie_name():
    """Return the cookie's name: over HTTPS with the prefix that settings.py explains."""
    return "__Host-visitor" if settings.SESSION_COOKIE_SECURE else "visitor"


def get_visitor(request):
    """Return the visitor's UUID, or None without a valid cookie."""
    value = request.get_signed_cookie(cookie_name(), default=None, salt=SALT, max_age=MAX_AGE)
    return UUID(value) if value else None


def remember_visitor(response, visitor):
    """Set the visitor's cookie on the response."""
    response.set_signed_cookie(
        cookie_name(),
        str(visitor),
        salt=SALT,
        max_age=MAX_AGE,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
