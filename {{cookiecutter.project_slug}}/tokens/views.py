from operator import itemgetter
from uuid import UUID, uuid4

from django.contrib import messages
from django.shortcuts import redirect, render
from django.utils.html import escape
from django.utils.safestring import SafeString
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from config.compat import TaskResultStatus
from config.servers import atomic
from config.throttle import throttled
from config.views import unavailable
from jobs.backend import QueueFull
from jobs.models import Job
from jobs.queue import get_progress, redis_is_silent
from tokens import conf
from tokens.models import LimitReached, Token, new_value
from tokens.tasks import make_token
from tokens.visitors import get_visitor, remember_visitor


@require_safe
@cache_control(no_store=True)
def home(request):
    """Show the visitor's tokens."""
    tokens = get_rows(Token.objects.of(get_visitor(request)))
    pending = [token for token in tokens if token["is_pending"]]
    context = {"tokens": tokens, "pending": pending, "swap": False}
    return render(request, "tokens/home.html", context)


@require_safe
@cache_control(no_store=True)
def progress(request):
    """Return the changes to the tokens named by `token`, for htmx to swap in.

    The page polls this while any of its tokens are pending.
    """
    mine = Token.objects.of(get_visitor(request))
    shown = parse_ids(request.GET.getlist("token"))
    tokens = get_rows(mine.filter(pk__in=shown))
    gone = {str(pk) for pk in shown} - {token["id"] for token in tokens}
    if gone and not mine.exists():
        return HttpResponseClientRefresh()  # the page has no list any more: load all of it
    context = {
        "pending": [token for token in tokens if token["is_pending"]],
        "arrived": [token for token in tokens if not token["is_pending"]],
        "gone": gone,
        "swap": True,
    }
    return render(request, "tokens/progress.html", context)


@require_POST
@throttled(conf.RATE)
def generate(request):
    """Make a token at once."""
    return create_token(request, state=Token.State.READY, value=new_value())


@require_POST
@throttled(conf.RATE)
def generate_in_background(request):
    """Make a token in a background job."""
    return create_token(request, state=Token.State.PENDING)


@require_POST
@throttled(conf.RATE)
def retry(request):
    """Ask again for a token that could not be made, and delete the failed one."""
    failed = Token.objects.filter(state=Token.State.FAILED)
    return create_token(request, instead_of=posted(request, failed), state=Token.State.PENDING)


@require_POST
def delete(request):
    """Delete one of the visitor's tokens."""
    if posted(request, Token.objects).delete()[0]:
        messages.success(request, "Deleted.")
    return redirect("tokens:home")


@require_http_methods(["GET", "HEAD", "POST"])
@cache_control(no_store=True)
def delete_all(request):
    """Delete all of the visitor's tokens, after asking for confirmation."""
    tokens = Token.objects.of(get_visitor(request))
    if request.method != "POST":
        return render(request, "tokens/delete_all.html", {"count": tokens.count()})
    deleted, _ = tokens.delete()
    messages.success(request, f"Deleted {deleted} token{'' if deleted == 1 else 's'}.")
    return redirect("tokens:home")


def create_token(request, *, instead_of=None, **fields):
    """Create a token for the visitor, and its job if it is pending; return a redirect home.

    `instead_of` is a queryset of tokens to delete in the same transaction. If it is given but
    empty, nothing is created.
    """
    visitor = get_visitor(request) or uuid4()
    response = redirect("tokens:home")
    try:
        with atomic(idle_seconds=10):
            if instead_of is not None and not instead_of.delete()[0]:
                return response
            pk = uuid4()
            if fields["state"] == Token.State.PENDING:
                fields["job"] = make_token.enqueue(str(pk)).id
            Token.objects.create_within_limits(visitor, pk=pk, **fields)
    except LimitReached as error:
        messages.error(request, str(error))
        return response
    except QueueFull as error:
        return unavailable(error.retry_after)
    if fields["state"] == Token.State.PENDING and redis_is_silent():
        messages.warning(request, "The queue is not responding. Your token will be late.")
    remember_visitor(response, visitor)
    return response


def posted(request, tokens):
    """Return the tokens of the queryset that the form names and the visitor owns."""
    ids = parse_ids(request.POST.getlist("token"))
    return tokens.filter(pk__in=ids, visitor=get_visitor(request))


def parse_ids(texts):
    """Return the texts that are UUIDs, as a set; invalid ids are ignored."""
    ids = set()
    for text in texts:
        try:
            ids.add(UUID(text))
        except ValueError:
            continue
    return ids


def get_rows(tokens):
    """Return what a page shows of each token of the queryset, as dictionaries.

    A page with ten rows costs a fifth less this way than with models: templates read dictionaries
    faster and need not escape text that is marked as safe, and Django takes longer to write an
    ORDER BY than Python to sort.
    """
    rows = list(tokens.order_by().values("id", "value", "state", "job", "created"))
    rows.sort(key=itemgetter("created"), reverse=True)
    for row in rows:
        row["is_pending"] = row["state"] == Token.State.PENDING
        # What a screen reader calls this token.
        row["label"] = escape(f"{row['state']} token {(row['value'] or str(row['id']))[:6]}")
        row["id"] = SafeString(row["id"])
        # The template's date filter takes 20 times as long.
        row["time"] = SafeString(f"{row['created'].hour:02}:{row['created'].minute:02} UTC")
    add_progress([row for row in rows if row["is_pending"]])
    return rows


def add_progress(rows):
    """Give each pending token its `status` (queued, running or retrying) and `progress` (%).

    This takes one query and one round trip to Redis, or neither if nothing is pending.
    """
    if not rows:
        return
    jobs = Job.objects.only("status", "attempts").in_bulk([row["job"] for row in rows])
    progress = get_progress(jobs)
    for row in rows:
        job = jobs.get(row["job"])
        row["status"] = "queued"
        row["progress"] = 0
        if job and job.status == TaskResultStatus.RUNNING:
            row["status"] = "running"
            row["progress"] = progress.get(job.pk, 0)
        elif job and job.attempts:
            row["status"] = "retrying"
