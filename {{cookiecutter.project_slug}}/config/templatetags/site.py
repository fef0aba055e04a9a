"""Tags of the base template. They need no context, because error pages are rendered without one."""

from functools import cache

from django import template
from django.conf import settings
from django.template.loader import render_to_string

from config import compat

register = template.Library()

_render = render_to_string if settings.DEBUG else cache(render_to_string)


@register.simple_tag
def site_name():
    """Return the site's name."""
    return compat.SITE_NAME


@register.simple_tag
def site_description():
    """Return the site's description, one sentence."""
    return compat.SITE_DESCRIPTION


@register.simple_tag
def render_once(template_name):
    """Return the template, rendered without a context when the process first needs it.

    For what never changes: rendering the head again would take a fifth of an error page's time.
    """
    return _render(template_name)
