"""Tasks of the site itself."""

from django.core import mail
from django.core.management import call_command

from jobs.compat import task


@task
def clear_sessions():
    """Delete the sessions that have expired, as Django asks every site to do."""
    call_command("clearsessions")


# When it fails for good, that is an error as well, and mailed: once, when there is a server again.
@task(retries=(60, 10 * 60, 60 * 60))
def mail_admins(subject, text):
    """Mail a text to ADMINS."""
    mail.mail_admins(subject, text)
