"""Mail that the site sends to real servers."""

import pytest
from support.commands import run
from support.http import Visitor
from support.mail import MailServer, make_certificate
from support.processes import Process, free_port, wait_for
from support.procfile import production, read_procfile
from support.pythons import newest_django, site_environment

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


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # it is sent inside TLS
@pytest.mark.parametrize(("scheme", "implicit"), [("smtp+tls", False), ("smtps", True)])
def test_mail_goes_over_tls_with_a_password(site, site_bin, certificate, scheme, implicit):
    with MailServer(certificate, implicit) as server:
        url = f"{scheme}://site:p%40ss%2Fword@localhost:{server.port}"
        send(site, site_bin, EMAIL_URL=url, SSL_CERT_FILE=str(certificate))
        (message,) = server.messages
        assert message["From"] == "site@example.org"
        assert message["To"] == "you@example.org"
        # A server without a trusted certificate gets neither the password nor the mail.
        with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
            send(site, site_bin, EMAIL_URL=url)
        assert len(server.messages) == 1


def test_development_prints_mail(site, site_bin):
    assert "Subject: Hello" in send(site, site_bin, DEBUG="true")


BROKEN = """
from django.urls import include, path


def page(request):
    raise RuntimeError("broken page")


urlpatterns = [path("broken/", page), path("", include("config.urls"))]
"""


@pytest.fixture
def broken(bake):
    """A site with a page that fails."""
    site = bake(django_version=newest_django())
    (site / "broken.py").write_text(BROKEN)
    (site / "config/broken_settings.py").write_text(
        'from config.settings import *\nROOT_URLCONF = "broken"\n'
    )
    return site


def test_a_worker_mails_the_errors_of_pages_once_the_server_is_up(broken, redis, tmp_path):
    """If the mail server is down or refuses, visitors notice nothing, and the mail waits."""
    bin_folder = site_environment(broken, newest_django())
    server = MailServer()
    environment = production(
        bin_folder,
        DJANGO_SETTINGS_MODULE="config.broken_settings",
        DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3",
        REDIS_URL=redis.url,
        PORT=str(free_port()),
        EMAIL_URL=f"smtp://localhost:{server.port}",
        ADMINS="admin@example.org",
        DEFAULT_FROM_EMAIL="site@example.org",
    )
    manage = [bin_folder / "python", "manage.py"]
    run(*manage, "migrate", "--verbosity", "0", site=broken, **environment)
    run(*manage, "collectstatic", "--no-input", "-v0", site=broken, **environment)
    commands = read_procfile(broken)
    web, worker = (
        Process(commands[name].split(), tmp_path / name, env=environment, cwd=broken)
        for name in ("web", "worker")
    )

    def attempts():
        rows = "from jobs.models import Job; print(*Job.objects.values_list('attempts', 'status'))"
        return run(*manage, "shell", "-v0", "-c", rows, site=broken, **environment)

    def make_due():
        code = "from jobs.models import *; from django.utils.timezone import now; "
        code += "from jobs.queue import send; jobs = list(Job.objects.all()); "
        code += "Job.objects.update(due=now()); send(jobs)"
        run(*manage, "shell", "-v0", "-c", code, site=broken, **environment)

    visitor = Visitor(f"http://localhost:{environment['PORT']}")
    with web, worker:
        wait_for(lambda: visitor.get("/healthz").status == 200, 60, "the site")
        assert visitor.get("/broken/").status == 500
        assert visitor.get("/broken/").status == 500  # this one is not mailed
        wait_for(lambda: "(1, 'READY')" in attempts(), 60, "an attempt with the server down")
        with server:
            server.refused.add("admin@example.org")
            make_due()
            wait_for(lambda: "(2, 'READY')" in attempts(), 60, "an attempt that was refused")
            server.refused.clear()
            make_due()
            wait_for(lambda: server.messages, 60, "the mail")
            assert len(server.messages) == 1
            assert server.messages[0]["Subject"].endswith("Internal Server Error: /broken/")
            assert "RuntimeError: broken page" in server.messages[0].get_content()
            wait_for(lambda: "SUCCESSFUL" in attempts(), 60, "the job's end")
