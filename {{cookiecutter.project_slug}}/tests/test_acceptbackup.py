import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

pytestmark = pytest.mark.django_db


def test_a_backup_of_this_site_is_accepted():
    call_command("acceptbackup")


def test_a_database_with_another_sites_migrations_is_refused():
    MigrationRecorder(connection).record_applied("blog", "0001_initial")
    with pytest.raises(CommandError, match=r"there is no migration blog\.0001_initial here"):
        call_command("acceptbackup")


def test_a_database_without_migrations_of_this_sites_apps_is_refused():
    recorder = MigrationRecorder(connection)
    recorder.flush()
    recorder.record_applied("contenttypes", "0001_initial")
    with pytest.raises(CommandError, match="no migration of its apps"):
        call_command("acceptbackup")


def test_a_database_without_a_table_is_refused():
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_session")
    with pytest.raises(CommandError, match=r"Not a backup of this site: .*django_session"):
        call_command("acceptbackup")
