"""The admin's login, closed to whoever guesses passwords."""

from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_address, ip_network

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.cache import cache
from django.core.exceptions import ValidationError
from redis.exceptions import RedisError

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
        try:
            cache.add(key, 0, PERIOD)
            attempts = cache.incr(key)
        except RedisError as error:
            raise ValidationError("Nobody can log in just now. Try again in a minute.") from error
        if attempts > ATTEMPTS:
            raise ValidationError("Too many attempts. Try again in a quarter of an hour.")
        cleaned = super().clean()
        cache.delete(key)
        return cleaned


def client_address(request):
    """Return the address that the nearest proxy saw, on which the client has no influence.

    A proxy appends it to what the client sent. Without a proxy there is no HTTPS, so in
    production there is one. Of IPv6 it is the network, /64: a client has all addresses of one.
    """
    forwarded = request.headers.get("X-Forwarded-For", request.META["REMOTE_ADDR"])
    address = forwarded.rpartition(",")[2].strip()
    with suppress(ValueError):
        if (parsed := ip_address(address)).version == 6 and not parsed.ipv4_mapped:
            return str(ip_network((parsed, 64), strict=False))
    return address
