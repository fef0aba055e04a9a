from django.contrib import admin

from config.admin import BoundedPaginator
from tokens.models import Token


@admin.register(Token)
class TokenAdmin(admin.ModelAdmin):
    """Shows staff which tokens exist, but never their values."""

    actions = None  # "Select all 1000" would really select every token
    list_display = ["id", "state", "created"]
    list_filter = ["state", "created"]
    fields = readonly_fields = ["id", "visitor", "state", "created"]
    paginator = BoundedPaginator
    show_full_result_count = False

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False
