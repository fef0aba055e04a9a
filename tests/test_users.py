"""A site that is older than the user model keeps its users, tokens and permissions."""

import re
import textwrap

import pytest
from support.commands import run
from support.pythons import site_environment
from support.servers import execute
from support.template import TEMPLATE

FILL = """
from uuid import uuid4
from django.contrib.auth.models import Group, Permission, User
from tokens.models import Token
ada = User.objects.create_user("ada", password="analytical engine", is_staff=True)
ada.groups.add(Group.objects.create(name="engineers"))
ada.user_permissions.add(Permission.objects.get(codename="change_user"))
Token.objects.create(visitor=uuid4(), state="ready", value="kept")
"""

LOOK = """
from django.contrib.auth import authenticate
from tokens.models import Token
ada = authenticate(username="ada", password="analytical engine")
print([*ada.groups.values_list("name", flat=True)], ada.get_all_permissions())
print([*Token.objects.values_list("value", flat=True)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_old_users_are_kept(bake, old_template, tmp_path, request, database):
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    if database == "postgres":
        postgres = request.getfixturevalue("postgres")
        execute(postgres.url(), "CREATE DATABASE users_of_before")
        url = postgres.url("users_of_before")
    before, after = bake(template=old_template), bake()

    def manage(site, *arguments):
        python = site_environment(site, "6.1") / "python"
        return run(python, "manage.py", *arguments, site=site, DATABASE_URL=url)

    manage(before, "migrate")
    manage(before, "shell", "--command", FILL)
    with pytest.raises(AssertionError, match="InconsistentMigrationHistory"):
        manage(after, "migrate")
    changelog = (TEMPLATE / "CHANGELOG.md").read_text()
    command = re.search(r'<!-- adopt users -->.*?--command "\n(.*?)\n *"\n', changelog, re.S)[1]
    manage(before, "shell", "--command", textwrap.dedent(command))
    assert "kept" in manage(before, "shell", "--command", LOOK)
    manage(after, "migrate")
    seen = manage(after, "shell", "--command", LOOK)
    assert "['engineers'] {'users.change_user'}" in seen
    assert "['kept']" in seen
    manage(after, "makemigrations", "--check")
