"""Ask one side for tokens in the background: `python clients.py MODULE enqueue COUNT` or `latency`.

`latency` prints the median time from just before enqueueing until a query finds the token ready.
"""

import statistics
import sys
import time
from importlib import import_module
from uuid import uuid4

# Sets Django up.
import_module(sys.argv[1])

if sys.argv[1] == "plain":
    from django_rq import get_queue
    from plain import Token, make

    ready = Token.objects.exclude(value="in the making")

    def ask():
        token = Token.objects.create()
        get_queue().enqueue(make, str(token.pk))
        return token.pk

else:
    from django.db import transaction
    from tokens.models import Token
    from tokens.tasks import make_token

    ready = Token.objects.filter(state=Token.State.READY)

    def ask():
        pk = uuid4()
        with transaction.atomic():
            Token.objects.create(pk=pk, visitor=pk, job=make_token.enqueue(str(pk)).id)
        return pk


def latency():
    times = []
    for _ in range(30):
        start = time.perf_counter()
        pk = ask()
        while not ready.filter(pk=pk).exists():
            time.sleep(0.001)
        times.append(time.perf_counter() - start)
    print(statistics.median(times))


if sys.argv[2] == "latency":
    latency()
else:
    for _ in range(int(sys.argv[3])):
        ask()
