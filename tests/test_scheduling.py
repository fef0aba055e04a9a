"""Which tests may run at the same time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from support.processes import wait_for
from support.scheduling import lane


@pytest.mark.xdist_group("any")
def test_xdist_groups_are_honoured(request):
    """With pytest 9.2, pytest-xdist ignored its groups, and all tests ran at the same time."""
    assert not hasattr(request.config, "workerinput") or request.node.nodeid.endswith("@any")


def test_a_test_that_runs_alone_waits_for_the_others_and_they_for_it(tmp_path):
    inside, leave = [], {name: Event() for name in ("first", "second", "alone", "late")}

    def stay(name):
        with lane(name == "alone", tmp_path):
            inside.append(name)
            leave[name].wait(30)
            inside.remove(name)

    def waits(future):
        with pytest.raises(TimeoutError):
            future.result(0.2)
        return True

    with ThreadPoolExecutor() as pool:
        for name in ("first", "second"):
            pool.submit(stay, name)
            wait_for(lambda name=name: name in inside)
        alone = pool.submit(stay, "alone")
        assert waits(alone)
        late = pool.submit(stay, "late")
        assert waits(late)
        assert sorted(inside) == ["first", "second"]
        leave["first"].set()
        leave["second"].set()
        wait_for(lambda: inside == ["alone"])
        assert waits(late)
        leave["alone"].set()
        wait_for(lambda: inside == ["late"])
        leave["late"].set()
