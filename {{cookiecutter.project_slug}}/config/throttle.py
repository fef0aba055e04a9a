"""So many times in a period, counted in the cache, and the address that a request came from."""

from functools import wraps
from hashlib import sha256
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.contrib import messages
from django.core.cache import cache
from django.shortcuts import render
from redis.exceptions import RedisError


class Throttle:
    """Allows something `limit` times in `period` seconds, which begin with the first time.

    `name` tells it from other throttles. `who` is any text that tells clients apart. The methods
    raise RedisError when Redis does not answer.
    """

    def __init__(self, name, limit, period):
        self.name = name
        self.limit = limit
        self.period = period

    def key(self, *who):
        return f"throttle:{self.name}:{sha256(repr(who).encode()).hexdigest()}"

    def allows(self, *who):
        """Count one more time; return whether it is allowed."""
        return cache.count(self.key(*who), self.period) <= self.limit

    def take_back(self, *who):
        """Count one time less."""
        cache.count(self.key(*who), self.period, by=-1)

    def reset(self, *who):
        """Begin at zero."""
        cache.delete(self.key(*who))


def throttled(limit, period=60):
    """Return a decorator of views: POST `limit` times in `period` seconds from one address.

    Past that the answer is 429 and a page that says so; htmx shows its message and swaps nothing.
    Without Redis everything is allowed.
    """

    def decorator(view):
        throttle = Throttle(f"{view.__module__}.{view.__qualname__}", limit, period)

        @wraps(view)
        def wrapper(request, *args, **kwargs):
            if request.method == "POST" and not allowed(throttle, request):
                messages.error(request, "Too many requests. Wait a minute, then try again.")
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
    """Return the address of the client, on which the client has no influence.

    Each proxy appends the address that it was asked from to X-Forwarded-For. Those appended by
    proxies that FORWARDED_ALLOW_IPS names are true, whatever the client sent before them; `*`
    stands for the one proxy that speaks to the site. Of IPv6 it is the network, /64, since a client
    has all addresses of one.
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
    """Return the IP address that the text says, or None.

    Proxies write it bare, with a port, in brackets, in quotes, with a zone, and IPv4 as IPv6.
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
