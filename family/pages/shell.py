"""The HTML shell that every report shares: one self-contained page, its sections, figures and lists."""

import base64
import hashlib
import re
from collections.abc import Sequence

from family.pages import style
from family.pages.text import escape


def page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return a whole page that needs no network.

    `title` is text; `lead` and each section's body are HTML made by this module; headings are text. The
    content policy admits only this page's own script, so even a mistake in escaping would run nothing.
    """
    digest = base64.b64encode(hashlib.sha256(style.SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name, _ in sections)
    body = "".join(f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>\n{content}</section>\n' for name, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style.page_css()}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1>\n{lead}\n<nav aria-label="Contents">{links}</nav></header>\n'
        f"{body}</main>\n<script>{style.SCRIPT}</script>\n</body>\n</html>\n"
    )


def paragraph(text: object, kind: str = "", link: tuple[str, str] | None = None) -> str:
    """Return text as a paragraph, or nothing for no text; kind is `note` or nothing; a link is (the heading of a section, its words)."""
    class_ = f' class="{kind}"' if kind else ""
    to = f' <a href="#{_anchor(link[0])}">{escape(link[1])}</a>' if link else ""
    return f"<p{class_}>{escape(text)}{to}</p>\n" if text else ""


def _anchor(name: str) -> str:
    """Return what a section is found by; of its heading, what is safe in an address."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "section"


def heading(text: object) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def figure(chart: str, caption: str = "", *, heading: str = "", narrow: str = "") -> str:
    """Return a chart with its caption; `narrow` is the same chart drawn for a phone, shown there instead."""
    above = f"<h3>{escape(heading)}</h3>" if heading else ""
    small = f'<div class="narrow">{narrow}</div>' if narrow else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="has-narrow"' if narrow else ""
    return f'<figure{kind}>{above}<div class="wide">{chart}</div>{small}{below}</figure>\n'


def budgeted(figure: str, low: float, high: float, budget: float | None) -> str:
    """Return a figure whose charts were drawn with `drags=True`, with the budget, in ms from low to high, to be moved and what fits it told; without the
    page's script the figure is as it was."""
    step = 'min="0" max="1000" step="1" value="1000"'
    return (
        f'<div class="budgeted" data-low="{low:g}" data-high="{high:g}" data-budget="{budget or ""}"><div class="tools">'
        f'<label>budget <input type="range" {step} autocomplete="off" aria-label="budget, logarithmic"></label>'
        '<label><input type="number" min="0" step="any" autocomplete="off" aria-label="budget in milliseconds"> ms</label><output></output></div>\n'
        f"{figure}</div>\n"
    )


def multiples(figures: Sequence[str]) -> str:
    """Return small figures side by side, as many in a row as fit; nothing for none."""
    return f'<div class="multiples">{"".join(figures)}</div>\n' if figures else ""


def definitions(entries: dict[str, str]) -> str:
    """Return words with their meanings."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items()) + "</dl>\n"


def tiles(entries: Sequence[tuple[str, str]]) -> str:
    """Return figures that are read at a glance: (the figure, what it is), as text."""
    return '<ul class="tiles">' + "".join(f"<li><strong>{escape(a)}</strong><span>{escape(b)}</span></li>" for a, b in entries) + "</ul>\n"


def cards(bodies: Sequence[str], *, ordered: bool = False, small: bool = False) -> str:
    """Return pieces of HTML as cards, as many in a row as fit, two or three on a desk; nothing for none."""
    tag, kind = "ol" if ordered else "ul", "cards small" if small else "cards"
    return f'<{tag} class="{kind}">' + "".join(f'<li class="card">{body}</li>\n' for body in bodies) + f"</{tag}>\n" if bodies else ""


def details(summary: str, body: str) -> str:
    """Return HTML that is unfolded by its summary; nothing for nothing."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}</details>\n" if body else ""


def bullets(items: Sequence[str]) -> str:
    """Return sentences as a list."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>\n"
