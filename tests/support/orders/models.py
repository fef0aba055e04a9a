from uuid import uuid4

from django.db import models


class Order(models.Model):
    """What somebody asked for, committed together with its job."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    task = models.CharField(max_length=20)
    trouble = models.CharField(max_length=20)
    job = models.UUIDField()


class Effect(models.Model):
    """One row for each time that an order took effect. Nothing keeps it from doubling."""

    order_id = models.UUIDField()  # no foreign key: an order that was rolled back has no row
