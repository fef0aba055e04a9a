"""The admin's login, closed to whoever guesses passwords."""

from hashlib import sha256

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.cache import cache
from django.core.exceptions import ValidationError

ATTEMPTS = 5
PERIOD = 15 * 60  # seconds, from the first attempt on


class LoginForm(AdminAuthenticationForm):
    """Allows an address a few attempts at a user name, then none until the period is over.

    By name and address, so that nobody can lock out the owner of a name from elsewhere. Counted
    before the password is looked at, so that guesses at the same time count as well.
    """

    def clean(self):
        attempt = f"{self.cleaned_data.get('username')} {client_address(self.request)}"
        key = f"login:{sha256(attempt.encode()).hexdigest()}"
        cache.add(key, 0, PERIOD)
        if cache.incr(key) > ATTEMPTS:
            raise ValidationError("Too many attempts. Try again in a quarter of an hour.")
        cleaned = super().clean()
        cache.delete(key)
        return cleaned


def client_address(request):
    """Return the address that the nearest proxy saw, on which the client has no influence.

    A proxy appends it to what the client sent. Without a proxy there is no HTTPS, so in
    production there is one.
    """
    forwarded = request.headers.get("X-Forwarded-For", request.META["REMOTE_ADDR"])
    return forwarded.rpartition(",")[2].strip()
