import runpy

import pytest

from tokens import conf


def test_a_value_that_does_not_parse_stops_the_start_in_one_line(monkeypatch):
    monkeypatch.setenv("TOKEN_WORK_SECONDS", "long")
    with pytest.raises(SystemExit, match=r"^The environment is wrong: .*TOKEN_WORK_SECONDS.*$"):
        runpy.run_path(conf.__file__)
