"""The Procfile, and the environment of its processes in production."""

import os


def read_procfile(site):
    """Return a dictionary from the process types in the site's Procfile to their commands."""
    lines = filter(None, (site / "Procfile").read_text().splitlines())
    return dict(line.split(": ", 1) for line in lines)


def production(site_bin, **variables):
    """Return production's environment, but with plain HTTP: there is no router in front."""
    return os.environ | {
        "PATH": f"{site_bin}:{os.environ['PATH']}",
        "DEBUG": "false",
        "HTTPS": "false",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "ALLOWED_HOSTS": "localhost",
        **variables,
    }
