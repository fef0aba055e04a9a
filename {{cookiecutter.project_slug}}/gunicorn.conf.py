"""Gunicorn, on Heroku and in the production image alike. It reads this file by itself."""

import gc
import os
import signal
import socket
import sys
import time

from gunicorn.glogging import Logger

from config.settings import DRAIN_SECONDS, FORWARDED_ALLOW_IPS, PORT, WEB_CONCURRENCY


def accepts_ipv6():
    """Whether this machine has sockets that accept IPv6 and IPv4 alike."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
            return not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return False


# Heroku's router speaks to [::]:$PORT; some kernels and containers have no IPv6.
bind = f"[::]:{PORT}" if accepts_ipv6() else f"0.0.0.0:{PORT}"

# The proxies whose X-Forwarded-Proto is believed.
forwarded_allow_ips = ",".join(FORWARDED_ALLOW_IPS)

# Heroku sets WEB_CONCURRENCY by the dyno's size: 2 with 512 MB.
workers = WEB_CONCURRENCY
worker_class = "gthread"
# Each thread keeps one connection to Postgres and one to Redis. The cheapest plans allow 20 of
# each, and a deploy may have the old and the new processes there at once: README.md counts.
threads = 3
# Threads that wait for the interpreter lock get it after 0.5 ms instead of 5 ms.
sys.setswitchinterval(0.0005)
# Load the site once and share its memory between the workers.
preload_app = True

# Heroku's router gives up after 30 s; a request older than that answers nobody.
timeout = 30
# SIGKILL follows SIGTERM after 30 s on Heroku: finish the running requests before.
graceful_timeout = 20
# Longer than the 90 s after which Heroku's router closes an idle connection.
keepalive = 95

# The heartbeat file in memory: a slow disk must not look like a dead worker.
if os.path.isdir("/dev/shm"):
    worker_tmp_dir = "/dev/shm"
# It would be a socket under $HOME, which is read-only in the image.
control_socket_disable = True

accesslog = "-"
access_log_format = (
    "method=%(method)s path=%(path)s status=%(status)s bytes=%(bytes)s ms=%(ms)d "
    'request_id=%(id)s from=%(from)s agent="%(agent)s"'
)


class SiteLogger(Logger):
    """Logs in the form of config/settings.py, and no health checks.

    It collects only what the line above needs: gunicorn's own copies all headers and variables.
    """

    error_fmt = access_fmt = "%(asctime)s.%(msecs)03dZ\t%(levelname)s\t%(name)s\t%(message)s"
    datefmt = "%Y-%m-%dT%H:%M:%S"

    def setup(self, cfg):
        super().setup(cfg)
        for handler in self.error_log.handlers + self.access_log.handlers:
            handler.formatter.converter = time.gmtime

    def access(self, response, request, environ, duration):
        if request.path not in ("/healthz", "/readyz"):
            super().access(response, request, environ, duration)

    def atoms(self, response, request, environ, duration):
        return {
            "method": request.method,
            # As it was sent: decoded, it could hold a line break and forge a line of its own.
            "path": request.uri,
            "status": response.status_code,
            "bytes": response.sent,
            "ms": duration.total_seconds() * 1000,
            "id": dict(response.headers).get("X-Request-ID", "-"),
            # The last address is the one that the nearest proxy saw.
            "from": environ.get("HTTP_X_FORWARDED_FOR", environ.get("REMOTE_ADDR", "-"))
            .rpartition(",")[2]
            .strip(),
            "agent": environ.get("HTTP_USER_AGENT", "-"),
        }


logger_class = SiteLogger

# With it, gunicorn does not count what it sends.
sendfile = False


def when_ready(server):
    # What the workers share stays shared: the collector would write a mark to every object.
    gc.freeze()


# Seconds for a whole body. Heroku's router waits for the header, but passes a body on as it comes:
# a visitor who sends a byte now and then would hold a thread for as long as they like. (Caddy, on
# a machine of your own, waits for the body as well.)
BODY_SECONDS = 15


def pre_request(worker, request):
    connection, read = request.unreader.sock, request.unreader.chunk
    end = time.monotonic() + BODY_SECONDS

    def read_in_time(size=None):
        connection.settimeout(max(end - time.monotonic(), 0.001))
        return read(size)

    request.unreader.chunk = read_in_time


def post_request(worker, request, environ, response):
    del request.unreader.chunk  # the connection may carry another request


# Seconds that the workers go on after SIGTERM while /healthz fails, until the proxy has noticed it
# and sends nothing more: what reaches a socket that closes is lost. Heroku's router needs none.
if DRAIN_SECONDS:

    def post_worker_init(worker):
        from config.middleware import HealthMiddleware

        def drain(*args):
            HealthMiddleware.draining = True
            signal.alarm(DRAIN_SECONDS)

        signal.signal(signal.SIGALRM, worker.handle_exit)
        signal.signal(signal.SIGTERM, drain)
