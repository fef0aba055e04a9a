"""Names of the Content-Security-Policy: django-csp's, used as Django 6 uses its own."""

from csp.decorators import csp as csp_override
from csp.middleware import CSPMiddleware
from django.conf import settings

__all__ = ["ContentSecurityPolicyMiddleware", "csp_override"]


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """django-csp, configured by Django 6's setting SECURE_CSP."""

    def get_policy_parts(self, request, response, report_only=False):
        parts = super().get_policy_parts(request, response, report_only)
        if parts.config is None and not report_only:
            parts.config = settings.SECURE_CSP
        return parts
