"""A mail server that keeps the mail it gets, on a free loopback port."""

import ssl
import subprocess
from email import message_from_bytes
from email.policy import default

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from support.processes import free_port

USER, PASSWORD = b"site", b"p@ss/word"


def make_certificate(folder):
    """Return the path of a certificate for localhost, with its key in the same file."""
    file = folder / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", file, "-out", folder / "certificate.pem"]
    subprocess.run(command, check=True, capture_output=True)
    with file.open("a") as both:
        both.write((folder / "certificate.pem").read_text())
    return file


class MailServer(Controller):
    """An SMTP server. With a certificate, it requires TLS, and the user and password.

    `messages` has the accepted mail. Mail to an address in `refused` is refused.
    """

    def __init__(self, certificate=None, implicit=False):
        self.messages = []
        self.refused = set()
        options = {}
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            options = {"authenticator": self.log_in, "auth_required": True}
            if implicit:
                options |= {"ssl_context": context, "auth_require_tls": False}
            else:
                options |= {"tls_context": context, "require_starttls": True}
        super().__init__(self, hostname="localhost", port=free_port(), **options)

    def log_in(self, server, session, envelope, mechanism, data):
        return AuthResult(success=(data.login, data.password) == (USER, PASSWORD))

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.messages.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop(no_assert=True)
