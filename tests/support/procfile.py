"""The Procfile, and the environment in which its processes run in production."""

import os


def read_procfile(site):
    """Return the process types of the site's Procfile -> their commands."""
    lines = filter(None, (site / "Procfile").read_text().splitlines())
    return dict(line.split(": ", 1) for line in lines)


def production(site_bin, **variables):
    """Return the environment of production, but over plain HTTP: there is no router before it."""
    return os.environ | {
        "PATH": f"{site_bin}:{os.environ['PATH']}",
        "DEBUG": "false",
        "HTTPS": "false",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "ALLOWED_HOSTS": "localhost",
        **variables,
    }
