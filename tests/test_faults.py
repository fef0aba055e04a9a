"""Jobs that lose nothing: faults injected into real processes on real servers.

Every fault has servers, workers, clocks and a database of its own, so several run at once. While it
is on, visitors ask over HTTP for tokens and for what a second app does, in `commit()` and outside.
In the end all that was accepted has taken effect or visibly failed, nothing in `commit()` twice,
and the queue is empty. `pytest -s` shows the table.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.faults import FAULTS, OPTIONS, Outcome, run

ASK = 40  # at least, per fault
AT_ONCE = 5  # faults; more would only wait for the processor
DATABASES = ("postgres", "sqlite")
QUICK = {("work_horses_killed", "postgres"), ("redis_emptied", "sqlite")}

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.alone]

CASES = [
    pytest.param(name, database, marks=[] if (name, database) in QUICK else pytest.mark.slow)
    for name in FAULTS
    for database in DATABASES
    if database == "postgres" or not name.startswith("postgres")
]


@pytest.fixture(scope="module")
def outcomes(stacks, request):
    """The outcome of each fault that was selected."""

    def outcome(selected):
        name, database = selected
        try:
            with stacks(name, database, **OPTIONS.get(name, {})) as stack:
                return run(stack, FAULTS[name], ASK)
        except BaseException as error:
            return Outcome(error=error)

    selected = [
        (item.callspec.params["name"], item.callspec.params["database"])
        for item in request.session.items
        if item.module is request.module and "outcomes" in item.fixturenames
    ]
    with ThreadPoolExecutor(AT_ONCE) as executor:
        results = dict(zip(selected, executor.map(outcome, selected), strict=True))
    print_table(results)
    return results


def print_table(outcomes):
    columns = ["asked", "done", "failed", "lost", "doubled", "again", "unasked", "refused"]
    print(f"\n| fault | database | {' | '.join(columns)} | seconds |")
    print("|---" * (len(columns) + 3) + "|")
    for (name, database), outcome in outcomes.items():
        cells = [name.replace("_", " "), database]
        cells += [str(getattr(outcome, column)) for column in columns]
        print(f"| {' | '.join(cells)} | {outcome.seconds:.0f} | {outcome.error or ''}")


@pytest.mark.parametrize(("name", "database"), CASES)
def test_nothing_is_lost_or_doubled(name, database, outcomes):
    outcome = outcomes[name, database]
    if outcome.error:
        raise outcome.error
    assert outcome.asked >= ASK
    assert (outcome.lost, outcome.doubled, outcome.unasked) == (0, 0, 0)
    assert outcome.done + outcome.failed == outcome.asked
    # Those that raise or hang each time, with `commit()` and without.
    assert outcome.failed == (4 if name == "jobs_that_raise_and_hang" else 0)
    # An attempt that overran did so together with the next one.
    assert outcome.again or name != "attempts_that_overrun"


# --- Controls: what these tests would see if the site did not keep its promise ------------------


@pytest.mark.slow
@pytest.mark.parametrize("database", DATABASES)
def test_without_clocks_jobs_are_lost(database, stacks):
    with stacks("without_clocks", database, clocks=0) as stack:
        outcome = run(
            stack, FAULTS["redis_emptied"], 20, recovered=lambda _: stack.queue_is_empty()
        )
    print_table({("without clocks", database): outcome})
    assert outcome.lost > 0


@pytest.mark.slow
@pytest.mark.parametrize("database", DATABASES)
def test_without_the_fence_effects_are_doubled(database, stacks):
    environment = {"WITHOUT_FENCE": "true"}
    with stacks("without_fence", database, environment=environment, workers=4) as stack:
        outcome = run(stack, FAULTS["attempts_that_overrun"], 20)
    print_table({("without fence", database): outcome})
    assert outcome.doubled > 0


@pytest.mark.parametrize("database", DATABASES)
def test_a_token_made_twice_is_seen(database, stacks):
    with stacks("audit", database, workers=0, clocks=0) as stack:
        receipt = stack.place_token()
        for value in ("a", "b"):
            stack.execute(f"UPDATE tokens_token SET value = '{value}'")
        outcome = Outcome()
        outcome.count(stack, [receipt])
    assert (outcome.asked, outcome.doubled, outcome.lost) == (1, 1, 0)
