"""Photos in a page, as data inside it: nothing is loaded from elsewhere."""

import base64
from collections.abc import Sequence

from family.pages.inline import share_bar
from family.pages.text import escape, percent


def photo(jpeg: bytes | None, alt: str) -> str:
    """Return a photo with the words that stand for it; where there is none, a box that says so."""
    if jpeg is None:
        return f'<span class="photo" role="img" aria-label="{escape(alt)}">no photo kept</span>'
    return f'<img class="photo" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="{escape(alt)}" decoding="async">'


def photos(pictures: Sequence[tuple[str, str]]) -> str:
    """Return photos side by side from (HTML of `photo`, the text under it); nothing for none."""
    items = "".join(f"<li>{picture}{escape(text)}</li>" for picture, text in pictures)
    return f'<ul class="photos">{items}</ul>\n' if pictures else ""


def gallery(items: Sequence[tuple[str, str]]) -> str:
    """Return photos, each with what is told about it beside: (HTML of `photo`, HTML); nothing for none."""
    return '<ul class="gallery">' + "".join(f"<li>{p}<div>{text}</div></li>\n" for p, text in items) + "</ul>\n" if items else ""


def answers(top: Sequence[tuple[str, float, str]]) -> str:
    """Return a model's best answers as a list of (name, probability, a remark or nothing), each on a bar of its probability."""
    lines = []
    for name, share, remark in top:
        told = f" <strong>{escape(remark)}</strong>" if remark else ""
        lines.append(f"<li>{share_bar(share)}<span>{percent(share)} %</span><span>{escape(name)}{told}</span></li>")
    return f'<ol class="top">{"".join(lines)}</ol>'
