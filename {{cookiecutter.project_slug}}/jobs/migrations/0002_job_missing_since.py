from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="missing_since",
            field=models.DateTimeField(editable=False, null=True),
        ),
    ]
