from django.contrib import admin, messages
from django.utils.html import format_html
from django.utils.timesince import timesince

from config.admin import BoundedPaginator
from config.compat import TaskResultStatus
from jobs.models import Job
from jobs.worker import finish

MAX_PER_ACTION = 1000


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """Shows all jobs to staff. With the permission to change jobs they can rerun or cancel them."""

    actions = ["run_again", "cancel"]
    list_display = ["task", "status", "attempts", "age", "queue_name", "id"]
    list_filter = ["status"]
    readonly_fields = [*(f.name for f in Job._meta.fields if f.name != "errors"), "tracebacks"]
    ordering = ["-enqueued_at"]
    paginator = BoundedPaginator
    show_full_result_count = False

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        """Allow the actions, but no Save button: it would overwrite what a worker has written."""
        return obj is None and super().has_change_permission(request)

    def has_delete_permission(self, request, obj=None):
        return False

    @admin.display(ordering="enqueued_at")
    def age(self, job):
        return timesince(job.enqueued_at)

    @admin.display(description="errors")
    def tracebacks(self, job):
        text = "\n".join(error["traceback"] for error in job.errors)
        return format_html("<pre>{}</pre>", text or "-")

    @admin.action(description="Run failed jobs again", permissions=["change"])
    def run_again(self, request, queryset):
        failed = queryset.filter(status=TaskResultStatus.FAILED)[:MAX_PER_ACTION]
        changed = [job for job in failed if job.run_again()]
        self.message_user(request, f"{len(changed)} will run again.", messages.SUCCESS)

    @admin.action(description="Cancel unfinished jobs", permissions=["change"])
    def cancel(self, request, queryset):
        cancelled = [job for job in queryset.unfinished()[:MAX_PER_ACTION] if job.cancel()]
        for job in cancelled:
            finish(job, cancelled=True)
        self.message_user(request, f"{len(cancelled)} cancelled.", messages.SUCCESS)
