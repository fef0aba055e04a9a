from django.apps import apps
from django.core.management import BaseCommand, CommandError, call_command
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader


class Command(BaseCommand):
    help = "Migrates a restored database to this version, or refuses it if it is not this site's."

    def handle(self, **options):
        try:
            self.check_migrations()
            call_command("migrate", interactive=False, verbosity=0)
            for model in apps.get_models():
                if model._meta.managed:
                    model._base_manager.first()
        except DatabaseError as error:
            raise CommandError(f"Not a backup of this site: {error}".strip()) from error

    def check_migrations(self):
        """Raise unless this version has every applied migration, and some are the site's own."""
        loader = MigrationLoader(connection)
        known = set(loader.disk_migrations)
        for migration in loader.disk_migrations.values():
            known.update(migration.replaces)
        unknown = sorted(".".join(key) for key in set(loader.applied_migrations) - known)
        if unknown:
            text = f"Not a backup of this site, or of a newer version: it has {unknown[0]}."
            raise CommandError(text)
        own = {app.label for app in apps.get_app_configs() if "site-packages" not in app.path}
        if not own & {label for label, name in loader.applied_migrations}:
            raise CommandError("Not a backup of this site: no migration of its apps was applied.")
