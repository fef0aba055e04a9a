"""The recipes: each diff applies, alone and together, and the site still passes its tests."""

import pytest
from support.commands import run
from support.pythons import site_environment
from support.recipes import RECIPES, apply, compile_messages, put_in


def check(site, site_bin, *options):
    """Run what `make lint` and `make test` run, with options for pytest."""
    run(site_bin / "ruff", "check", "--no-cache", ".", site=site)
    run(site_bin / "ruff", "format", "--no-cache", "--check", ".", site=site)
    run(site_bin / "python", "manage.py", "makemigrations", "--check", "--dry-run", site=site)
    compile_messages(site, site_bin)
    run(site_bin / "pytest", "-q", *options, site=site)


@pytest.mark.parametrize("name", RECIPES)
def test_each_diff_applies(site, name):
    assert apply(site, name, check=True) == ""


def test_all_diffs_apply_together(site):
    assert apply(site, *RECIPES, check=True) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_sites_tests_pass_with_one_recipe(bake, name):
    site = put_in(bake(), name)
    check(site, site_environment(site, "6.1"))


@pytest.mark.slow
def test_the_sites_tests_pass_with_all_recipes(bake, variant):
    site = put_in(bake(django_version=variant), *RECIPES)
    check(site, site_environment(site, variant), "--cov", "--cov-fail-under=100")
