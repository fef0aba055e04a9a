"""Mail, sent by the site to real servers."""

import pytest
from support.commands import run
from support.mail import MailServer, make_certificate

SEND = (
    "from django.core.mail import send_mail; send_mail('Hello', 'Text', None, ['you@example.org'])"
)
PRODUCTION = {
    "DEBUG": "false",
    "SECRET_KEY": "0123456789abcdef" * 4,
    "ALLOWED_HOSTS": "localhost",
    "DEFAULT_FROM_EMAIL": "site@example.org",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def send(site, site_bin, **environment):
    command = [site_bin / "python", "manage.py", "shell", "--verbosity", "0", "-c", SEND]
    return run(*command, site=site, **PRODUCTION | environment)


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # it is within TLS
@pytest.mark.parametrize(("scheme", "implicit"), [("smtp+tls", False), ("smtps", True)])
def test_mail_goes_over_tls_with_a_password(site, site_bin, certificate, scheme, implicit):
    with MailServer(certificate, implicit) as server:
        url = f"{scheme}://site:p%40ss%2Fword@localhost:{server.port}"
        send(site, site_bin, EMAIL_URL=url, SSL_CERT_FILE=str(certificate))
        (message,) = server.messages
        assert message["From"] == "site@example.org"
        assert message["To"] == "you@example.org"
        # Who cannot be trusted is given neither the password nor the mail.
        with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
            send(site, site_bin, EMAIL_URL=url)
        assert len(server.messages) == 1


def test_development_prints_mail(site, site_bin):
    assert "Subject: Hello" in send(site, site_bin, DEBUG="true")
