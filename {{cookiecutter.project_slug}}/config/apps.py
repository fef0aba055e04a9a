from django.apps import AppConfig
from rq.serializers import DefaultSerializer, JSONSerializer


class SiteConfig(AppConfig):
    """What the whole site needs, whichever apps it has."""

    name = "config"

    def ready(self):
        from config import checks  # noqa: F401  (registers them)

        # The dashboard names no serializer when it shows a busy worker: RQ's default, pickle, could
        # not read its job, and would run whatever code somebody put there.
        DefaultSerializer.dumps = JSONSerializer.dumps
        DefaultSerializer.loads = JSONSerializer.loads
