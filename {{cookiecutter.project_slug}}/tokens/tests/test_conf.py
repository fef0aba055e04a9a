import runpy

import pytest

from tokens import conf


@pytest.mark.parametrize("value", ["long", "-1", "nan", "inf"])
def test_a_bad_value_stops_the_site_with_one_line(monkeypatch, value):
    monkeypatch.setenv("TOKEN_WORK_SECONDS", value)
    with pytest.raises(SystemExit, match=r"^The environment is wrong: .*TOKEN_WORK_SECONDS.*$"):
        runpy.run_path(conf.__file__)
