"""Logins, with a limit on wrong passwords."""

from contextlib import suppress

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import ValidationError
from redis.exceptions import RedisError

from config.throttle import Throttle, client_address

PERIOD = 15 * 60  # seconds
# By name and address, so that nobody can lock out a user from another address.
BY_NAME = Throttle("login-name", 5, PERIOD)
# Wrong passwords for any names: each comparison takes a large part of a second.
BY_ADDRESS = Throttle("login", 50, PERIOD)


class ThrottledBackend(ModelBackend):
    """Django's backend, but it does not check the password of a client that tried too often.

    As a backend it covers every login form: it raises ValidationError, which forms show. An attempt
    is counted before its password is checked, so simultaneous attempts count too.
    """

    def authenticate(self, request, **credentials):
        if request is None:  # a script, not a visitor
            return super().authenticate(request, **credentials)
        address = client_address(request)
        name = sorted(str(value) for key, value in credentials.items() if key != "password")
        try:
            allowed = BY_NAME.allows(name, address) and BY_ADDRESS.allows(address)
        except RedisError as error:
            raise ValidationError("Nobody can log in right now. Try again in a minute.") from error
        if not allowed:
            raise ValidationError("Too many attempts. Try again in 15 minutes.")
        user = super().authenticate(request, **credentials)
        if user:
            with suppress(RedisError):
                BY_NAME.reset(name, address)
                BY_ADDRESS.take_back(address)
        return user

    # Django's own asynchronous method would bypass the throttle.
    aauthenticate = sync_to_async(authenticate)
