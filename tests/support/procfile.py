"""What the Procfile says."""


def read_procfile(site):
    """Return the process types of the site's Procfile -> their commands."""
    lines = filter(None, (site / "Procfile").read_text().splitlines())
    return dict(line.split(": ", 1) for line in lines)
