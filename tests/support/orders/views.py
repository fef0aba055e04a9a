from contextlib import suppress
from uuid import uuid4

from django.db import transaction
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from orders import tasks
from orders.models import Order


class RolledBack(Exception):
    pass


@csrf_exempt
@require_POST
def place(request, task, trouble):
    """Place an order and return its id, or nothing if it is rolled back on purpose."""
    pk = uuid4()
    with suppress(RolledBack), transaction.atomic():
        job = getattr(tasks, task).enqueue(str(pk), trouble)
        Order.objects.create(pk=pk, task=task, trouble=trouble, job=job.id)
        if trouble == "rolled back":
            raise RolledBack
        return HttpResponse(pk)
    return HttpResponse()
