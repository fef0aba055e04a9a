from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from config.settings import SCHEDULE
from jobs import schedule
from jobs.models import Job, Schedule
from jobs.schedule import check_schedule, next_time
from jobs.tests import tasks

pytestmark = pytest.mark.django_db(transaction=True)

ADD = "jobs.tests.tasks.add"


@pytest.fixture
def entry(settings):
    """Return the row of an entry that is due each night, but not now."""
    settings.SCHEDULE = {ADD: "0 3 * * *"}
    schedule.enqueue_due()
    schedule.enqueue_due()
    return Schedule.objects.get()


def let_pass(**time):
    """Make entries due that much earlier."""
    Schedule.objects.update(due=F("due") - timedelta(**time))


def test_a_new_entry_starts_from_now(entry):
    assert Job.objects.count() == 0
    assert timezone.now() < entry.due <= timezone.now() + timedelta(days=1)


def test_a_task_is_enqueued_when_its_time_has_come(entry):
    let_pass(days=1)
    schedule.enqueue_due()
    assert Job.objects.get().task == ADD
    assert Schedule.objects.get().due == entry.due


def test_times_missed_while_no_clock_ran_count_as_one(entry):
    let_pass(days=10)
    schedule.enqueue_due()
    schedule.enqueue_due()
    assert Job.objects.count() == 1
    assert Schedule.objects.get().due == entry.due


def test_two_clocks_that_see_the_same_time_enqueue_one_job(entry, monkeypatch):
    let_pass(days=1)

    def other_clock(crontab, now):
        monkeypatch.setattr(schedule, "next_time", next_time)
        schedule.enqueue_due()
        return next_time(crontab, now)

    monkeypatch.setattr(schedule, "next_time", other_clock)
    schedule.enqueue_due()
    assert Job.objects.count() == 1


def test_an_entry_is_not_enqueued_while_its_last_call_waits(entry):
    for _ in range(2):
        Schedule.objects.update(due=timezone.now() - timedelta(minutes=1))
        schedule.enqueue_due()
    assert Job.objects.count() == 1
    Job.objects.update(status="RUNNING")
    Schedule.objects.update(due=timezone.now() - timedelta(minutes=1))
    schedule.enqueue_due()
    assert Job.objects.count() == 2


def test_a_call_that_somebody_deferred_or_gave_arguments_does_not_hold_an_entry_up(entry):
    tasks.add.enqueue(first=1)
    tasks.add.using(run_after=timezone.now() + timedelta(days=365)).enqueue()
    Schedule.objects.update(due=timezone.now() - timedelta(minutes=1))
    schedule.enqueue_due()
    assert Job.objects.count() == 3


def test_an_entry_is_not_enqueued_while_its_last_call_waits_for_a_worker_with_its_task(entry):
    for _ in range(2):
        Schedule.objects.update(due=timezone.now() - timedelta(minutes=1))
        schedule.enqueue_due()
        Job.objects.first().postpone(ImportError())
    assert Job.objects.count() == 1


def test_a_changed_entry_starts_from_now(entry, settings):
    settings.SCHEDULE = {ADD: "0 4 * * *"}
    for _ in range(2):
        schedule.enqueue_due()
    assert Job.objects.count() == 0
    assert Schedule.objects.get(crontab="0 4 * * *").due > timezone.now()


def test_a_removed_entry_is_forgotten_an_hour_after_it_was_due(entry, settings):
    settings.SCHEDULE = {}
    Schedule.objects.update(due=timezone.now() - timedelta(minutes=30))
    schedule.enqueue_due()
    assert Schedule.objects.exists()
    Schedule.objects.update(due=timezone.now() - timedelta(minutes=90))
    schedule.enqueue_due()
    assert not Schedule.objects.exists()
    assert Job.objects.count() == 0


def test_a_removed_entry_that_was_never_due_is_forgotten_at_once(settings):
    Schedule.objects.create(task=ADD, crontab="0 3 * * *")
    settings.SCHEDULE = {}
    schedule.enqueue_due()
    assert not Schedule.objects.exists()


def test_a_bad_entry_does_not_stop_the_others(settings, caplog):
    settings.SCHEDULE = {"jobs.tests.tasks.gone": "* * * * *", ADD: "* * * * *"}
    schedule.enqueue_due()
    Schedule.objects.update(due=timezone.now() - timedelta(minutes=1))
    schedule.enqueue_due()
    assert Job.objects.get().task == ADD
    assert "jobs.tests.tasks.gone" in caplog.text


def times(crontab, start, count):
    """Return the next times of a crontab as they read in UTC, like 03-29 01:00."""
    moment = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        moment = next_time(crontab, moment)
        found.append(f"{moment:%m-%d %H:%M}")
    return found


@pytest.fixture
def berlin(settings):
    """In 2026 clocks go forward on 29 March at 01:00 UTC, back on 25 October at 01:00 UTC."""
    settings.TIME_ZONE = "Europe/Berlin"


@pytest.mark.parametrize(
    ("crontab", "start", "expected"),
    [
        ("30 4 * * *", "2026-06-01T00:00", ["06-01 02:30", "06-02 02:30"]),
        # In spring 02:00 to 03:00 is skipped: once, at the end of the gap.
        ("30 2 * * *", "2026-03-28T02:00", ["03-29 01:00", "03-30 00:30"]),
        ("15,45 2 * * *", "2026-03-28T02:00", ["03-29 01:00", "03-30 00:15"]),
        ("0 */2 * * *", "2026-03-28T23:30", ["03-29 01:00", "03-29 02:00"]),
        ("30 * * * *", "2026-03-28T23:45", ["03-29 00:30", "03-29 01:30"]),
        # In autumn 02:00 to 03:00 comes twice: a fixed time once, an interval both times.
        ("30 2 * * *", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
        ("30 2 * * *", "2026-10-25T00:45", ["10-26 01:30"]),
        ("30 * * * *", "2026-10-25T00:00", ["10-25 00:30", "10-25 01:30", "10-25 02:30"]),
        ("*/30 * * * *", "2026-10-25T00:15", ["10-25 00:30", "10-25 01:00", "10-25 01:30"]),
    ],
)
def test_times_follow_the_wall_clock_when_clocks_change(berlin, crontab, start, expected):
    assert times(crontab, start, len(expected)) == expected


@pytest.mark.parametrize(
    ("path", "crontab", "said"),
    [
        ("jobs.tests.tasks.gone", "0 3 * * *", 'does not define a "gone"'),
        ("no path", "0 3 * * *", "no path doesn't look like a module path"),
        ("jobs.tests.tasks.no_task", "0 3 * * *", "is not a task"),
        (ADD, "0 3 * *", "five fields"),
        (ADD, "0 0 3 * * *", "five fields"),
        (ADD, "@daily", "five fields"),
        (ADD, "0 25 * * *", "'0 25 * * *'"),
        (ADD, "0 3 30 2 *", "'0 3 30 2 *'"),
        (ADD, None, "five fields"),
        (ADD, 60, "five fields"),
        (ADD, f"{','.join(map(str, range(50)))} * * * *", "at most 100 characters"),
        (ADD, "0 3 * * *", "missing a required argument: 'first'"),
    ],
)
def test_a_bad_entry_is_an_error(settings, path, crontab, said):
    settings.SCHEDULE = {path: crontab}
    (error,) = check_schedule()
    assert said in error.msg


def test_the_sites_schedule_passes_the_check(settings):
    settings.SCHEDULE = SCHEDULE
    assert check_schedule() == []
