"""Who the visitor is: a random id in a signed cookie of its own, outside Django's sessions.

Session keys change at login, and logout deletes the session. Tokens should survive both.
"""

from uuid import UUID

from django.conf import settings

SALT = "tokens.visitor"
MAX_AGE = 60 * 60 * 24 * 30  # seconds; renewed with each token


def cookie_name():
    """Return the cookie's name. Over HTTPS it has the prefix that config/settings.py explains."""
    return "__Host-visitor" if settings.SESSION_COOKIE_SECURE else "visitor"


def get_visitor(request):
    """Return the visitor's UUID, or None if there is no valid cookie."""
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
