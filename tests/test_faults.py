"""No job is lost: faults injected into real processes on real servers.

Each fault has its own servers, workers, clocks and database, so several run at the same time.
During the fault, visitors ask over HTTP for tokens and for jobs of a second app, inside and outside
`commit()`. In the end every accepted request has taken effect or visibly failed, nothing in
`commit()` happened twice, and the queue is empty. `pytest -s` shows the table.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.faults import FAULTS, OPTIONS, Outcome, run

ASK = 40  # the fewest requests during each fault
AT_ONCE = 5  # faults at the same time; more would only wait for the processor
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
    """The outcome of each selected fault."""

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
    # The tasks that always raise or hang, with `commit()` and without.
    assert outcome.failed == (4 if name == "jobs_that_raise_and_hang" else 0)
    # An attempt that overran did its work again together with the next one.
    assert outcome.again or name != "attempts_that_overrun"


# --- Controls: these tests would notice a broken promise ----------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("database", DATABASES)
def test_the_count_of_lost_jobs_notices_missing_clocks(database, stacks):
    with stacks("without_clocks", database, clocks=0) as stack:
        outcome = run(
            stack, FAULTS["redis_emptied"], 20, recovered=lambda _: stack.queue_is_empty()
        )
    print_table({("without clocks", database): outcome})
    assert outcome.lost > 0


@pytest.mark.slow
@pytest.mark.parametrize("database", DATABASES)
def test_without_the_fence_effects_happen_twice(database, stacks):
    environment = {"WITHOUT_FENCE": "true"}
    with stacks("without_fence", database, environment=environment, workers=4) as stack:
        outcome = run(stack, FAULTS["attempts_that_overrun"], 20)
    print_table({("without fence", database): outcome})
    assert outcome.doubled > 0


@pytest.mark.parametrize("database", DATABASES)
def test_a_token_made_twice_is_noticed(database, stacks):
    with stacks("audit", database, workers=0, clocks=0) as stack:
        receipt = stack.place_token()
        for value in ("a", "b"):
            stack.execute(f"UPDATE tokens_token SET value = '{value}'")
        outcome = Outcome()
        outcome.count(stack, [receipt])
    assert (outcome.asked, outcome.doubled, outcome.lost) == (1, 1, 0)
