"""What config/project.py says, as tags, because error pages are rendered without a context."""

from django import template

from config import project

register = template.Library()


@register.simple_tag
def site_name():
    """Return the site's name."""
    return project.SITE_NAME


@register.simple_tag
def site_description():
    """Return what the site is, in one sentence."""
    return project.SITE_DESCRIPTION
