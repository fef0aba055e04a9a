from django.apps import AppConfig
from rq.serializers import DefaultSerializer, JSONSerializer


class SiteConfig(AppConfig):
    """What the site needs, whatever apps it has."""

    name = "config"

    def ready(self):
        from config import checks  # noqa: F401  (registers them)

        # The dashboard reads a busy worker's job with RQ's default serializer. That is pickle: it
        # cannot read these jobs, and would run any code that somebody put into Redis.
        DefaultSerializer.dumps = JSONSerializer.dumps
        DefaultSerializer.loads = JSONSerializer.loads
