from uuid import uuid4

from django.db import models


class Order(models.Model):
    """A visitor's request, committed together with its job."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    task = models.CharField(max_length=20)
    trouble = models.CharField(max_length=20)
    job = models.UUIDField()


class Effect(models.Model):
    """One row for each time an order took effect. Nothing prevents a second row."""

    # No foreign key, because an order that was rolled back has no row.
    order_id = models.UUIDField()
