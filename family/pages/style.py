"""One look for every page: colours for light and dark, the style sheets, and the page script.

Series colours follow Okabe and Ito's colour-blind safe set, darkened on white and lightened on black until
each has a contrast of at least 3:1 with the background; charts add shapes and dashes, so no meaning hangs on
colour alone.
"""

import re
from pathlib import Path

LIGHT = {
    "bg": "#ffffff", "panel": "#f5f7f9", "text": "#1a1f26", "muted": "#59636f", "rule": "#dde2e8",
    "good": "#00664b", "bad": "#a83200",
    "c1": "#0072b2", "c2": "#d55e00", "c3": "#008f68", "c4": "#a8437f", "c5": "#8a6a00", "c6": "#5a52b5",
}  # fmt: skip
DARK = {
    "bg": "#14181d", "panel": "#1c2229", "text": "#e7ebef", "muted": "#9ba6b2", "rule": "#343c46",
    "good": "#4fd1a5", "bad": "#ff9c6b",
    "c1": "#5cb8ee", "c2": "#f58d4c", "c3": "#31c79b", "c4": "#e490c3", "c5": "#e3bf4b", "c6": "#aaa4f5",
}  # fmt: skip
N_SERIES = 6
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

CHART_CSS = (
    f"""
.chart {{ font-family: {FONT}; font-size: 12px }}
.chart text {{ fill: var(--text) }}
.chart .quiet {{ fill: var(--muted) }}
.chart .strong {{ font-weight: 600 }}
.chart .halo {{ paint-order: stroke; stroke: var(--bg); stroke-width: 3px; stroke-linejoin: round }}
.chart .grid {{ stroke: var(--rule); stroke-width: 1 }}
.chart .axis {{ stroke: var(--muted); stroke-width: 1 }}
.chart .lead {{ stroke: var(--muted); stroke-width: .75 }}
.chart .front {{ stroke: var(--text); stroke-width: 1.5; fill: none; stroke-opacity: .55 }}
.chart .whisker {{ stroke: var(--muted); stroke-width: 1; stroke-opacity: .75 }}
.chart .budget {{ stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4 }}
.chart .budget-text {{ fill: var(--bad) }}
.chart .over {{ opacity: .25 }}
.chart .backdrop {{ fill: var(--bg) }}
"""
    + "".join(f".chart .c{i} {{ fill: var(--c{i}); stroke: var(--c{i}) }}\n" for i in range(1, N_SERIES + 1))
    + """
.chart .line { fill: none; stroke-width: 2 }
.chart .ring { stroke: var(--bg); stroke-width: 1.5 }
.chart .hollow { fill: var(--bg); stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 2 1.5 }
.chart .cell { stroke: none }
"""
)

PAGE_CSS = f"""
* {{ box-sizing: border-box }}
html {{ color-scheme: light dark; -webkit-text-size-adjust: 100% }}
body {{ margin: 0; background: var(--bg); color: var(--text); font: 16px/1.6 {FONT} }}
main {{ max-width: 1152px; margin: 0 auto; padding: 56px 32px 72px }}
h1 {{ font-size: 30px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 16px }}
h2 {{ font-size: 21px; line-height: 1.3; margin: 0 0 8px; padding-top: 28px;
  border-top: 1px solid var(--rule) }}
h3 {{ font-size: 16px; margin: 32px 0 4px }}
p {{ margin: 0 0 14px; max-width: 74ch }}
.lead {{ font-size: 18px; line-height: 1.6; margin-bottom: 20px }}
.note, figcaption, nav {{ color: var(--muted); font-size: 13.5px; line-height: 1.55 }}
.note {{ max-width: 110ch }}
nav {{ margin: 0 0 8px }}
nav a, .note a {{ color: var(--c1); text-underline-offset: 3px }}
nav a {{ display: inline-block; margin: 0 18px 4px 0 }}
section {{ margin-top: 48px }}
figure {{ margin: 20px 0 28px; min-width: 0 }}
figcaption {{ margin-top: 6px; max-width: 110ch }}
.chart {{ display: block; max-width: 100%; height: auto }}
.narrow {{ display: none }}
.budgeted .chart {{ cursor: ew-resize; touch-action: pan-y }}
small {{ font-size: 11.5px; color: var(--muted) }}
.multiples {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 8px 32px }}
.multiples figure {{ margin: 12px 0 }}
figure h3 {{ margin: 12px 0 10px }}
.scroll {{ overflow-x: auto; margin: 12px 0 10px }}
.scroll:focus-visible, button:focus-visible, a:focus-visible, input:focus-visible, select:focus-visible, summary:focus-visible {{
  outline: 2px solid var(--c1); outline-offset: 2px }}
table {{ border-collapse: separate; border-spacing: 0; font-size: 13.5px; line-height: 20px;
  font-variant-numeric: tabular-nums }}
table.full {{ width: 100% }}
caption {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }}
th, td {{ padding: 8px 7px; text-align: right; vertical-align: baseline; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
th:first-child, td:first-child {{ position: sticky; left: 0; padding-left: 0;
  background: var(--bg) padding-box }}
thead th {{ color: var(--muted); font-weight: 500; vertical-align: bottom;
  border-bottom: 1px solid var(--muted) }}
tbody tr > * {{ border-bottom: 1px solid var(--rule) }}
tbody th {{ font-weight: 500 }}
tbody tr:hover > * {{ background-color: var(--panel) }}
tr.quiet > * {{ color: var(--muted) }}
th button {{ all: unset; cursor: pointer; position: relative }}
th button:hover {{ color: var(--text) }}
th[aria-sort=ascending] button, th[aria-sort=descending] button {{ color: var(--text) }}
th[aria-sort] button::after {{ position: absolute; right: 100%; bottom: 0 }}
th:first-child[aria-sort] button::after {{ right: auto; left: 100% }}
th[aria-sort=ascending] button::after {{ content: "\\2191" }}
th[aria-sort=descending] button::after {{ content: "\\2193" }}
.tag {{ display: inline-block; margin-left: 8px; padding: 0 6px; border: 1px solid currentColor;
  border-radius: 9px; font-size: 11px; line-height: 16px; font-weight: 500; white-space: nowrap }}
.tag.good {{ color: var(--good) }}
.tag.bad {{ color: var(--bad) }}
.tag.plain {{ color: var(--muted) }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 6px 24px; margin: 12px 0; max-width: 90ch }}
dt {{ font-weight: 600 }}
dd {{ margin: 0 }}
.wrap {{ white-space: normal; text-align: left; max-width: 300px; overflow-wrap: break-word }}
.above {{ color: var(--muted) }}
.wrap .above {{ display: block; font-size: 12px; line-height: 16px; font-weight: 400 }}
.bar {{ display: inline-block; width: 48px; height: 8px; margin-right: 8px; background: var(--rule); text-align: left }}
.bar i {{ display: block; height: 100%; background: var(--c1) }}
.tools {{ display: none; flex-wrap: wrap; align-items: center; gap: 8px 16px; margin: 12px 0; font-size: 13.5px }}
[data-ready] .tools {{ display: flex }}
.tools label {{ display: flex; align-items: center; gap: 8px; max-width: 100% }}
.tools input, .tools select, .tools button {{ font: inherit; color: inherit; background: var(--bg); padding: 5px 10px;
  border: 1px solid var(--muted); border-radius: 4px; min-width: 0; max-width: 100% }}
.tools input[type=number] {{ width: 84px }}
.tools button {{ cursor: pointer }}
.tools button:hover {{ background: var(--panel) }}
.tools output {{ color: var(--muted) }}
.tiles, .cards, .photos, .gallery, .top {{ list-style: none; margin: 16px 0; padding: 0 }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 16px }}
.tiles li, .card {{ background: var(--panel); border-radius: 8px; padding: 16px 18px; min-width: 0 }}
.tiles strong {{ display: block; font-size: 26px; line-height: 1.3; letter-spacing: -.01em }}
.tiles span {{ display: block; color: var(--muted); font-size: 13.5px; line-height: 1.5 }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 16px }}
.cards.small {{ grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)) }}
.card h3, .card h4, .card p {{ margin: 0 0 6px; overflow-wrap: anywhere }}
.card h3, .card h4 {{ font-size: 16px; line-height: 1.4 }}
.card p {{ font-size: 14.5px; line-height: 1.5 }}
.card p.note {{ font-size: 13px }}
.groups {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(160px, 100%), 1fr)); gap: 0 20px; margin-top: 10px }}
.groups > div {{ display: grid; grid-template-rows: subgrid; grid-row: span 2 }}
.card .groups p {{ font-size: 13px; line-height: 1.4; margin: 0 }}
.photos {{ display: flex; flex-wrap: wrap; align-content: start; gap: 8px; margin: 4px 0 8px }}
.photos li {{ width: 74px; font-size: 11.5px; line-height: 1.3; color: var(--muted); overflow-wrap: anywhere }}
.photo {{ display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--rule); border-radius: 4px }}
.small .photos li {{ width: calc((100% - 16px) / 3) }}
span.photo {{ padding: 28% 4px; text-align: center; color: var(--muted); font-size: 11.5px; line-height: 1.3 }}
.gallery {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 24px 28px }}
.gallery > li {{ display: grid; grid-template-columns: 92px minmax(0, 1fr); gap: 14px; font-size: 13px; line-height: 1.45 }}
.gallery p {{ margin: 0 0 4px; overflow-wrap: anywhere }}
.gallery .note {{ font-size: 12.5px; line-height: 1.4 }}
.top {{ margin: 6px 0 0 }}
.top li {{ position: relative; display: grid; grid-template-columns: 56px minmax(0, 1fr); margin-bottom: 2px; padding: 0 6px }}
.top .bar {{ position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; background: none; opacity: .16 }}
details {{ margin: 16px 0 }}
summary {{ cursor: pointer; color: var(--c1) }}
@media (min-width: 701px) {{
  tbody th:first-child:has(.tag + .tag) {{ white-space: normal; min-width: 260px }}
}}
@media (max-width: 700px) {{
  main {{ padding: 32px 16px 48px }}
  h1 {{ font-size: 25px }}
  .lead {{ font-size: 17px }}
  .has-narrow .wide {{ display: none }}
  .has-narrow .narrow {{ display: block }}
  .multiples {{ grid-template-columns: minmax(0, 1fr) }}
  .tiles {{ grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px }}
  .tiles li {{ padding: 12px 14px }}
  .tiles strong {{ font-size: 21px }}
  tbody th:first-child {{ white-space: normal; min-width: 136px; max-width: 164px; overflow-wrap: anywhere }}
  tbody th:first-child .tag {{ margin-left: 0 }}
  dl {{ grid-template-columns: 1fr; gap: 0 }}
  dd {{ margin-bottom: 10px }}
}}
@media print {{
  main {{ max-width: none; padding: 0 }}
  nav, [data-ready] .tools {{ display: none }}
  .bar, .bar i, .tiles li, .card, .photo, .chart {{ print-color-adjust: exact; -webkit-print-color-adjust: exact }}
  section:has(.own-page) + section {{ break-before: page }}
  .tiles {{ grid-template-columns: repeat(4, 1fr); gap: 8px }}
  .tiles li, .card {{ padding: 10px 12px }}
  .tiles strong {{ font-size: 15pt }}
  .cards {{ grid-template-columns: repeat(2, 1fr); gap: 10px }}
  .cards.small {{ grid-template-columns: repeat(3, 1fr) }}
  .card p {{ font-size: 9.5pt }}
  body {{ font-size: 11pt }}
  table {{ font-size: 8pt; line-height: 14px }}
  th, td {{ padding: 4px 5px }}
  .scroll {{ overflow: visible }}
  section {{ margin-top: 28px }}
  figure, tr, li {{ break-inside: avoid }}
  h2, h3 {{ break-after: avoid }}
}}
"""

SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")


def variables(colours: dict[str, str]) -> str:
    """Return a set of colours as CSS custom properties on the root element."""
    return ":root { " + "; ".join(f"--{name}: {value}" for name, value in colours.items()) + " }"


def page_css() -> str:
    """Return the style sheet of a page: light, dark where it is preferred, and always light on paper."""
    return (
        f"{variables(LIGHT)}\n@media (prefers-color-scheme: dark) {{ {variables(DARK)} }}\n"
        f"@media print {{ {variables(LIGHT)} }}\n{PAGE_CSS}{CHART_CSS}"
    )


def chart_css() -> str:
    """Return the style sheet of a chart in a file of its own, with plain colours that any viewer reads."""
    return f"{_resolved(LIGHT)}\n@media (prefers-color-scheme: dark) {{ {_resolved(DARK)} }}"


def _resolved(colours: dict[str, str]) -> str:
    return re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], CHART_CSS)
