"""gunicorn's settings, on Heroku and in the production image. It finds this file by itself."""

import gc
import os
import signal
import socket
import sys
import time
from contextlib import suppress

from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException

from config.settings import DRAIN_SECONDS, FORWARDED_ALLOW_IPS, PORT, WEB_CONCURRENCY

# IPv6 and IPv4. Some kernels and containers have no IPv6.
bind = f"[::]:{PORT}" if socket.has_dualstack_ipv6() else f"0.0.0.0:{PORT}"

# The proxies whose X-Forwarded-Proto is trusted.
forwarded_allow_ips = ",".join(FORWARDED_ALLOW_IPS)
# By default, they could also pass on a visitor's SCRIPT_NAME, which moves the site to other paths.
forwarder_headers = ""

# Heroku sets WEB_CONCURRENCY according to the dyno's size: 2 with 512 MB.
workers = WEB_CONCURRENCY
# `sync` needs 13 to 20 % less CPU for a page, but the worker is idle while Postgres works: a page
# that waits 30 ms for Postgres did 60 requests/s with `sync`, and 155 with these threads.
worker_class = "gthread"
# Each thread keeps one connection to Postgres and one to Redis. Heroku's cheapest plans allow 20 of
# each, and a deploy runs old and new processes at the same time: docs/heroku.md counts them.
threads = 3
# Threads that wait for the interpreter lock get it after 0.5 ms instead of 5 ms. This helps those
# that wait for Postgres, at the cost of those that only compute. Requests/s, best and median:
#                                                       0.5 ms      5 ms
#   the home page                                       360, 272    328, 292
#   the admin's login, which only computes              291, 161    338, 278
#   a page that waits 30 ms, on a busy machine          140, 85     127, 74
#   the same, beside load on the home page              56, 36      44, 33
sys.setswitchinterval(0.0005)
# Load the site once and share its memory between the workers: 86 MB for two instead of 136.
preload_app = True

# On Heroku, SIGKILL follows SIGTERM after 30 s. Finish running requests before that.
graceful_timeout = 20 + DRAIN_SECONDS
# Heroku's router closes an idle connection after 90 s. Keep it for longer than that.
keepalive = 95

# Keep the heartbeat file in memory: a slow disk must not look like a dead worker.
if os.path.isdir("/dev/shm"):
    worker_tmp_dir = "/dev/shm"
# The control socket would be in $HOME, which is read-only in the image.
control_socket_disable = True

accesslog = "-"
access_log_format = (
    "method=%(method)s path=%(path)s status=%(status)s bytes=%(bytes)s ms=%(ms)d "
    'request_id=%(id)s from=%(from)s agent="%(agent)s"'
)


class SiteLogger(Logger):
    """Logs in the same format as config/settings.py, and leaves out health checks.

    It collects only what the line above needs. gunicorn's own logger copies all headers and
    variables, which took 43 µs of a request, and 160 to 210 under load.
    """

    error_fmt = access_fmt = "%(asctime)s.%(msecs)03dZ\t%(levelname)s\t%(name)s\t%(message)s"
    datefmt = "%Y-%m-%dT%H:%M:%S"

    def setup(self, cfg):
        super().setup(cfg)
        for handler in self.error_log.handlers + self.access_log.handlers:
            handler.formatter.datefmt = self.datefmt  # gunicorn sets it for the error log only
            handler.formatter.converter = time.gmtime

    def access(self, response, request, environ, duration):
        if request.path not in ("/healthz", "/readyz"):
            super().access(response, request, environ, duration)

    def atoms(self, response, request, environ, duration):
        sender = environ.get("HTTP_X_FORWARDED_FOR", environ.get("REMOTE_ADDR", "-"))
        return {
            "method": request.method,
            # As it was sent. Decoded, it could contain a line break and forge a log line.
            "path": request.uri,
            # gunicorn's own responses have no status_code.
            "status": str(response.status).partition(" ")[0],
            "bytes": response.sent,
            "ms": duration.total_seconds() * 1000,
            "id": dict(response.headers).get("X-Request-ID", "-"),
            # The last address is what the nearest proxy saw. Spaces could forge other fields.
            "from": "".join(sender.rpartition(",")[2].split()),
            "agent": environ.get("HTTP_USER_AGENT", "-"),
        }


logger_class = SiteLogger

# With sendfile, gunicorn logs bytes=0 for static files.
sendfile = False


def when_ready(server):
    # The garbage collector writes to every object, which ends the sharing. With this, web uses
    # 86 MB after some traffic instead of 105.
    gc.freeze()


# Seconds for a whole body. Heroku's router waits for the header, but passes the body on as it
# arrives: a visitor who sends one byte now and then would hold a thread forever. (On your own
# server, Caddy waits for the body too.)
BODY_SECONDS = 15


def pre_request(worker, request):
    connection, read = request.unreader.sock, request.unreader.chunk
    end = time.monotonic() + BODY_SECONDS

    def read_in_time(size=None):
        connection.settimeout(max(end - time.monotonic(), 0.001))
        return read(size)

    request.unreader.chunk = read_in_time


def post_request(worker, request, environ, response):
    """Read the rest of the body, within the same time, or hang up.

    gunicorn would read it too, but with a new timeout for each byte.
    """
    try:
        for _ in range(16):  # a megabyte
            if not request.body.read(2**16):
                break
        else:
            raise TimeoutError
    except (OSError, ParseException):
        with suppress(OSError):
            request.unreader.sock.shutdown(socket.SHUT_RDWR)
    del request.unreader.chunk  # the connection may carry another request


# After SIGTERM, workers go on for this many seconds while /healthz fails, until the proxy notices
# and sends no more requests: one that reaches a closing socket is lost. Heroku needs no delay.
if DRAIN_SECONDS:

    def post_worker_init(worker):
        from config.middleware import HealthMiddleware

        def drain(*args):
            HealthMiddleware.draining = True
            signal.alarm(DRAIN_SECONDS)

        signal.signal(signal.SIGALRM, worker.handle_exit)
        signal.signal(signal.SIGTERM, drain)
