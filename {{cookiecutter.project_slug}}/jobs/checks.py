"""System checks of settings.SCHEDULE. The backend checks settings.TASKS itself."""

from croniter import CroniterError
from django.conf import settings
from django.core.checks import Error, register
from django.utils import timezone
from django.utils.module_loading import import_string

from config.compat import Task
from jobs.backend import Backend
from jobs.schedule import next_time


@register
def check_schedule(**kwargs):
    """Return an error for each entry whose task is missing or whose crontab never comes."""
    errors = []
    for path, crontab in settings.SCHEDULE.items():
        try:
            task = import_string(path)
        except ImportError as error:
            errors.append(Error(f"SCHEDULE: there is no {path}: {error}", id="jobs.E002"))
            continue
        if not isinstance(task, Task) or not isinstance(task.get_backend(), Backend):
            errors.append(Error(f"SCHEDULE: {path} is not a task of jobs/.", id="jobs.E003"))
        try:
            if len(crontab.split()) != 5:
                raise ValueError("it needs five fields, such as 0 3 * * *")
            next_time(crontab, timezone.now())
        except (AttributeError, CroniterError, ValueError) as error:
            errors.append(Error(f"SCHEDULE: {crontab!r} for {path}: {error}", id="jobs.E004"))
    return errors
