from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """Who can log in. Django's own user, in a class of this site's: add fields here."""

    class Meta(AbstractUser.Meta):
        # The table of Django's own user, which sites had that were made before this class.
        db_table = "auth_user"
