from django_rq import get_worker

from tokens import worker


def test_a_heartbeat_leaves_a_trace_for_the_health_check(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "HEARTBEAT", tmp_path / "heartbeat")
    get_worker(worker_class=worker.Worker, serializer="json").heartbeat()
    assert worker.HEARTBEAT.exists()
