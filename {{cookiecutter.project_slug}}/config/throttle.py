"""Throttles, which count in the cache: for views, and for wrong passwords."""

from contextlib import suppress
from functools import wraps
from hashlib import sha256
from ipaddress import ip_address, ip_network

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.backends import ModelBackend
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.shortcuts import render
from redis.exceptions import RedisError


class Throttle:
    """Allows something `limit` times in `period` seconds, starting with the first time.

    `name` must be unique among throttles. `who` is any text that identifies a client. The methods
    raise RedisError if Redis does not answer.
    """

    def __init__(self, name, limit, period):
        self.name = name
        self.limit = limit
        self.period = period

    def key(self, *who):
        return f"throttle:{self.name}:{sha256(repr(who).encode()).hexdigest()}"

    def allows(self, *who):
        """Count up, and return whether this time is allowed."""
        return cache.count(self.key(*who), self.period) <= self.limit

    def take_back(self, *who):
        """Count down."""
        cache.count(self.key(*who), self.period, by=-1)

    def reset(self, *who):
        """Start again at zero."""
        cache.delete(self.key(*who))


def throttled(limit, period=60):
    """Return a decorator that limits a view to `limit` POST requests per address and `period`.

    After that it answers 429 with a page; htmx only shows its message. If Redis is down, everything
    is allowed. `period` is in seconds.
    """

    def decorator(view):
        if iscoroutinefunction(view):
            raise TypeError("throttled() is for synchronous views.")
        # `method_decorator` passes a bound method, maybe Django's own: take its object's class.
        instance = getattr(getattr(view, "func", None), "__self__", None)
        owner = getattr(view, "view_class", view) if instance is None else type(instance)
        name = f"{owner.__module__}.{owner.__qualname__}.{view.__name__}"
        throttle = Throttle(name, limit, period)

        @wraps(view)
        def wrapper(request, *args, **kwargs):
            if request.method == "POST" and not allowed(throttle, request):
                messages.error(request, "Too many requests. Try again later.")
                response = render(request, "429.html", status=429)
                response["Retry-After"] = str(period)
                response["HX-Reswap"] = "none"
                return response
            return view(request, *args, **kwargs)

        return wrapper

    return decorator


def allowed(throttle, request):
    try:
        return throttle.allows(client_address(request))
    except RedisError:
        return True


def client_address(request):
    """Return the client's address, which the client cannot forge.

    Each proxy appends the address of its own client to X-Forwarded-For. Addresses appended by
    proxies in FORWARDED_ALLOW_IPS are trusted, whatever the client sent before them; `*` means the
    one proxy that talks to the site. An IPv6 address becomes its /64 network, because a client has
    all addresses of one.
    """
    trusted = settings.FORWARDED_ALLOW_IPS
    hops = request.headers.get("X-Forwarded-For", "").split(",")
    hops = [hop.strip() for hop in hops if hop.strip()]
    hop = request.META.get("REMOTE_ADDR", "")
    if "*" in trusted and hops:
        hop = hops.pop()
    while hops and is_within(hop, trusted):
        hop = hops.pop()
    address = parse_address(hop)
    if address and address.version == 6:
        return str(ip_network((address, 64), strict=False))
    return str(address or hop)


def is_within(hop, networks):
    address = parse_address(hop)
    return any(address in ip_network(network) for network in networks if address and network != "*")


def parse_address(text):
    """Return the IP address in the text, or None.

    Proxies write it bare, with a port, in brackets, in quotes, with a zone, or IPv4 as IPv6.
    """
    text = text.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


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
        if request is None or "password" not in credentials:  # a script, or no password
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
