import pytest
from django.core.cache import cache


def test_a_pickled_value_in_redis_is_not_loaded(bomb):
    cache.get_master_client().set(cache.make_key("bomb"), bomb)
    with pytest.raises(ValueError):
        cache.get("bomb")


def test_clearing_the_cache_leaves_the_queue_alone(queue):
    cache.set("key", "value")
    job = queue.enqueue("operator.add", 1, 2)
    cache.clear()
    assert cache.get("key") is None
    assert queue.job_ids == [job.id]
