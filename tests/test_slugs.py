"""A folder may have the name of a Python keyword or package: nothing imports it."""

import pytest
from support.commands import run
from support.pythons import newest_django, site_environment


@pytest.mark.parametrize("slug", ["my-site", "django", "class"])
def test_a_site_works_in_a_folder_of_any_name(bake, slug):
    site = bake(project_slug=slug, django_version=newest_django(), create_git_repo=False)
    assert site.name == slug
    python = site_environment(site, newest_django()) / "python"
    run(python, "manage.py", "check", site=site)
    run(python, "-m", "pytest", "-q", "-x", "tests/test_admin.py", site=site)
    assert f'name = "{slug}"' in (site / "pyproject.toml").read_text()
