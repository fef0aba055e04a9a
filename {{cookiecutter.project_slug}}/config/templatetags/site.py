"""Tags of the base template. They need no context, because error pages are rendered without one."""

from django import template

from config import compat

register = template.Library()


@register.simple_tag
def site_name():
    """Return the site's name."""
    return compat.SITE_NAME


@register.simple_tag
def site_description():
    """Return the site's description, one sentence."""
    return compat.SITE_DESCRIPTION


@register.tag
def once(parser, token):
    """Render the part between `{% once %}` and `{% endonce %}` once in each process.

    For text that never changes: computing its URLs takes much of a short page's time. The part
    sees no variables, so nothing of one visitor's page gets into another's. It stays in the
    language of the first page.
    """
    nodelist = parser.parse(["endonce"])
    parser.delete_first_token()
    return OnceNode(nodelist)


class OnceNode(template.Node):
    text = None

    def __init__(self, nodelist):
        self.nodelist = nodelist

    def render(self, context):
        if self.text is None:
            self.text = self.nodelist.render(context.new())
        return self.text
