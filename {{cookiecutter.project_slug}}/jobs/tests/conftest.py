import pytest


@pytest.fixture(autouse=True)
def _no_schedule(settings):
    """Let no minute that passes during a test enqueue anything."""
    settings.SCHEDULE = {}
