from django import template

from config.project import SITE_NAME

register = template.Library()


@register.simple_tag
def site_name():
    """Return the site's name. A tag, because error pages are rendered without a context."""
    return SITE_NAME
