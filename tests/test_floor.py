"""The oldest Python that the template runs on, which pyproject.toml names.

`make lint` refuses code that needs a newer one, and .ci/run runs the tests on Debian's.
"""

import sys

from support.commands import git
from support.pythons import FLOOR, SITE_FLOOR, version
from support.template import TEMPLATE


def test_every_python_file_compiles_on_this_python():
    assert sys.version_info >= version(FLOOR)
    names = git(TEMPLATE, "ls-files", "-z", "*.py").split("\0")
    # A brace is in the name of a file that is rendered, and no Python before.
    names = [name for name in names if (TEMPLATE / name).is_file() and "}." not in name]
    assert len(names) > 80
    for name in names:
        compile((TEMPLATE / name).read_text(encoding="utf-8"), name, "exec")


def test_the_readme_names_the_floor():
    assert f"Python {FLOOR} or newer" in (TEMPLATE / "README.md").read_text()


def test_a_site_of_the_lts_runs_on_the_floor_too():
    assert min(SITE_FLOOR.values(), key=version) == FLOOR
