import pytest
from django.urls import reverse

from tokens.models import Token

pytestmark = pytest.mark.django_db


def test_the_list_of_tokens_shows_no_values(admin_client, token):
    response = admin_client.get(reverse("admin:tokens_token_changelist"))
    assert str(token.pk) in response.text
    assert token.value not in response.text


def test_there_are_no_actions_on_many_tokens(admin_client, token):
    data = {"action": "delete_selected", "_selected_action": token.pk, "post": "yes"}
    admin_client.post(reverse("admin:tokens_token_changelist"), data)
    assert Token.objects.count() == 1


def test_a_tokens_page_shows_no_value_and_cannot_change_it(admin_client, token):
    url = reverse("admin:tokens_token_change", args=[token.pk])
    assert token.value not in admin_client.get(url).text
    assert admin_client.post(url, {"state": "failed"}).status_code == 403
    assert admin_client.get(reverse("admin:tokens_token_add")).status_code == 403
