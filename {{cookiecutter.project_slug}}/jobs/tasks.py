"""Tasks of the site itself."""

from django.core.management import call_command

from jobs.compat import task


@task
def clear_sessions():
    """Delete the sessions that have expired, as Django asks every site to do."""
    call_command("clearsessions")
