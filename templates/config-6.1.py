"""Names of the Content-Security-Policy: Django's own."""

from django.middleware.csp import ContentSecurityPolicyMiddleware
from django.views.decorators.csp import csp_override

__all__ = ["ContentSecurityPolicyMiddleware", "csp_override"]
