"""Small pieces of HTML that stand within a line: a category's path, a share as a bar."""

from family.pages.text import escape

SEPARATOR = "/"


def path(text: str) -> str:
    """Return a category's path, its last name standing out."""
    *above, leaf = str(text).split(SEPARATOR)
    before = f'<span class="above">{escape(" / ".join(above))}&nbsp;/</span> ' if above else ""
    return f'{before}<span class="leaf">{escape(leaf)}</span>'


def share_bar(share: float) -> str:
    """Return a share from 0 to 1 as a bar; its number stands beside it, so it is hidden from screen readers."""
    return f'<i class="bar" aria-hidden="true"><i style="width:{100 * min(max(share, 0.0), 1.0):.0f}%"></i></i>'
