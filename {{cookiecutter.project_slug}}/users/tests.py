import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse

from users.models import User


def test_the_site_has_its_own_user_class_in_djangos_table():
    assert get_user_model() is User
    assert User._meta.db_table == "auth_user"
    assert User._meta.get_field("groups").m2m_db_table() == "auth_user_groups"


@pytest.mark.django_db
def test_users_are_added_in_the_admin(admin_client):
    data = {"username": "ada", "usable_password": "true"}
    data |= {"password1": "analytical engine", "password2": "analytical engine"}
    admin_client.post(reverse("admin:users_user_add"), data)
    user = User.objects.get(username="ada")
    assert user.check_password("analytical engine")
    assert "ada" in admin_client.get(reverse("admin:users_user_changelist")).text
