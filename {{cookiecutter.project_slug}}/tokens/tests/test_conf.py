import runpy

import pytest

from tokens import conf


@pytest.mark.parametrize("value", ["long", "-1", "nan", "inf"])
def test_a_value_that_cannot_work_stops_the_start_in_one_line(monkeypatch, value):
    monkeypatch.setenv("TOKEN_WORK_SECONDS", value)
    with pytest.raises(SystemExit, match=r"^The environment is wrong: .*TOKEN_WORK_SECONDS.*$"):
        runpy.run_path(conf.__file__)
