from django.apps import AppConfig


class UsersConfig(AppConfig):
    name = "users"
    # As in the tables of Django's own user: see models.py.
    default_auto_field = "django.db.models.AutoField"
