"""Call a WSGI application and report the CPU time of a request: `python cpu.py MODULE`.

It reads requests as JSON, one on each line of standard input, and prints the µs for each.
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
    """Request the path from the application and read the whole answer, as a server does."""
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
    gc.freeze()  # for both sides, so that neither is measured while it collects its modules
    for line in sys.stdin:
        request = json.loads(line)
        start = time.process_time()
        for _ in range(TURN):
            call(application, **request)
        print((time.process_time() - start) / TURN * 1e6, flush=True)


if __name__ == "__main__":
    main()
