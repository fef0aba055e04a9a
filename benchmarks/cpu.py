"""Call a WSGI application and tell what CPU a request costs: `python cpu.py MODULE`.

It reads requests from standard input, one a line, as JSON, and answers each line with the µs.
"""

import gc
import io
import json
import sys
import time
from importlib import import_module
from wsgiref.util import setup_testing_defaults

TURN = 20  # requests


def call(application, path, status="200", method="GET", **headers):
    """Ask the application for the path and take all of its answer, as a server does."""
    path, _, query = path.partition("?")
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query} | headers
    environ |= {"SERVER_NAME": "127.0.0.1", "HTTP_HOST": "127.0.0.1", "REMOTE_ADDR": "127.0.0.1"}
    environ["wsgi.errors"] = io.StringIO()
    setup_testing_defaults(environ)
    given = []
    response = application(environ, lambda status, headers, *args: given.append(status))
    body = b"".join(response)
    response.close()
    if not given[0].startswith(status):
        raise RuntimeError(f"{path}: {given[0]}, not {status}\n{body.decode(errors='replace')}")


def main():
    application = import_module(sys.argv[1]).application
    gc.freeze()  # for both sides alike, so that none is measured while it collects the modules
    for line in sys.stdin:
        request = json.loads(line)
        start = time.process_time()
        for _ in range(TURN):
            call(application, **request)
        print((time.process_time() - start) / TURN * 1e6, flush=True)


if __name__ == "__main__":
    main()
