from django.contrib import admin
from django.core.paginator import Paginator
from django.utils.functional import cached_property

from tokens.models import Token


class NewestPaginator(Paginator):
    """Ends a list after its first 1000 rows: to count a million would read them all."""

    @cached_property
    def count(self):
        return self.object_list[:1000].count()


@admin.register(Token)
class TokenAdmin(admin.ModelAdmin):
    """Shows staff which tokens exist, never their values."""

    actions = None  # "Select all 1000" would delete all that there are
    list_display = ["id", "state", "created"]
    list_filter = ["state", "created"]
    fields = readonly_fields = ["id", "visitor", "state", "created"]
    paginator = NewestPaginator
    show_full_result_count = False

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False
