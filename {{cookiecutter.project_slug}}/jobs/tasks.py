"""Tasks of the site itself."""

from django.core import mail
from django.core.management import call_command

from config.compat import task


@task
def clear_sessions():
    """Delete expired sessions. Django leaves that to the site."""
    call_command("clearsessions")


# If this fails for good, that error is mailed too: once, when the mail server is back.
@task(retries=(60, 10 * 60, 60 * 60))
def mail_admins(subject, text):
    """Mail a text to ADMINS."""
    mail.mail_admins(subject, text)
