import pytest


@pytest.fixture(autouse=True)
def _no_schedule(settings):
    """Enqueue nothing when a minute passes during a test."""
    settings.SCHEDULE = {}
