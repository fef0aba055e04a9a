"""Tasks for the tests. They write groups of django.contrib.auth."""

from django.contrib.auth.models import Group

from config.compat import task

calls = []


@task
def add(first, second=0):
    calls.append((first, second))
    return first + second


@task
async def add_async(first, second):
    return first + second


@task
def return_no_json():
    return object()


@task(retries=(10,))
def fail(text="broken"):
    raise ValueError(text)


@task(retries=())
def fail_once_and_for_all():
    raise ValueError("broken")


@task
def leave():
    raise SystemExit(3)


@task(takes_context=True, timeout=7)
def write(context, name):
    with context.commit():
        Group.objects.create(name=name)
    return name


@task(takes_context=True)
def write_and_raise(context, name):
    with context.commit():
        Group.objects.create(name=name)
    raise ValueError("too late to matter")


@task(takes_context=True)
def raise_while_writing(context, name):
    with context.commit():
        Group.objects.create(name=name)
        raise ValueError("too early")


@task(takes_context=True)
def commit_twice(context):
    with context.commit():
        pass
    with context.commit():
        pass


@task(takes_context=True)
def call_back(context, name):
    """Call what the test put into `hooks`."""
    hooks[name](context)


hooks = {}


def no_task():
    pass
