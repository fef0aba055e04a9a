"""The site's name and description as tags, because error pages are rendered without a context."""

from django import template

from config import project

register = template.Library()


@register.simple_tag
def site_name():
    """Return the site's name."""
    return project.SITE_NAME


@register.simple_tag
def site_description():
    """Return the site's description, one sentence."""
    return project.SITE_DESCRIPTION
