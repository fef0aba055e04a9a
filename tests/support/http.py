"""A visitor without a browser."""

import http.client
import re
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

from support.processes import wait_for

FORM = "application/x-www-form-urlencoded"


class Response:
    """A complete answer: its `status`, `headers`, `text`, and the `cookies` that it sets."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode(errors="replace")  # static files may be compressed
        self.cookies = SimpleCookie()
        for line in self.headers.get_all("Set-Cookie", []):
            self.cookies.load(line)


class Visitor:
    """A visitor who keeps cookies and does not follow redirects.

    `context` is the TLS context. With `keep_alive`, all requests use one connection. `patience` is
    for how many seconds a request is repeated if nobody answers, or with a server error.
    """

    def __init__(self, address, context=None, keep_alive=False, patience=0):
        self.address = address
        self.context = context
        self.keep_alive = keep_alive
        self.patience = patience
        self.cookies = {}
        self.connection = None

    def headers(self, **headers):
        """Return the headers of a request, with the given ones added or replaced."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Cookie": cookies, "Origin": self.address} | headers

    def connect(self):
        url = urlsplit(self.address)
        if url.scheme == "https":
            return http.client.HTTPSConnection(url.netloc, context=self.context, timeout=60)
        return http.client.HTTPConnection(url.netloc, timeout=60)

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def send(self, method, path, body, headers):
        self.connection = self.connection or self.connect()
        try:
            self.connection.request(method, path, body, headers)
            response = Response(self.connection.getresponse())
        except BaseException:
            self.close()
            raise
        if not self.keep_alive:
            self.close()
        return response

    def request(self, method, path, body=None, **options):
        """Send a request and return the Response; `options` go to `headers`."""
        headers = self.headers(**options)
        if not self.keep_alive:
            headers["Connection"] = "close"
        if body is not None:
            headers.setdefault("Content-Type", FORM)

        def answer():
            response = self.send(method, path, body, headers)
            return response if response.status < 500 or not self.patience else None

        response = wait_for(answer, self.patience, path) if self.patience else answer()
        for name, cookie in response.cookies.items():
            if cookie["max-age"] == "0":
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = cookie.coded_value
        return response

    def get(self, path="/", **options):
        return self.request("GET", path, **options)

    def page(self, path="/"):
        """Return the text of a page, which must exist."""
        response = self.get(path)
        if response.status != 200:
            # wait_for tries again after this.
            raise ConnectionError(f"{path} answers with {response.status}")
        return response.text

    def form(self, page="/", **data):
        """Return a form's body, with the page's CSRF token."""
        csrf = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.page(page))[1]
        return urlencode(data | {"csrfmiddlewaretoken": csrf})

    def post(self, path, page="/", **data):
        """Send one of the page's forms, as its button does."""
        return self.request("POST", path, self.form(page, **data))

    def generate(self):
        """Make a token at once."""
        assert self.post("/generate/").status == 302

    def generate_in_background(self):
        assert self.post("/generate-in-background/").status == 302

    def tokens(self):
        """Return the values on the page, newest first."""
        return re.findall(r"<code>([0-9a-f]{64})</code>", self.page())

    def ids(self, state=r"\w+"):
        """Return the ids of the tokens on the page, or only of those in a state."""
        return re.findall(rf'value="(\S+)" aria-label="Delete {state}', self.page())

    def walk(self):
        """Make a token at once and one in the background."""
        before = len(self.tokens())
        self.generate()
        assert len(self.tokens()) == before + 1
        self.generate_in_background()
        wait_for(lambda: len(self.tokens()) == before + 2, 60, "the token")
        return self
