from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """Somebody who can log in: Django's user, in a class of your own. Add fields here."""

    class Meta(AbstractUser.Meta):
        # The table of Django's own user, because older sites already have it.
        db_table = "auth_user"
