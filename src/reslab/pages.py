"""What the pages share: their frame, colours in light and dark, texts that are shown as they are, and sorted tables."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reslab.text import visible

PNG = b"\x89PNG"
STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --quiet: #5c6370; --line: #d8dbe0; --paper: #fff; --card: #f4f5f7;
  --train: #3b7dd8; --val: #e0a030; --test: #3a9d5d; --worst: #c0392b }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6ea; --quiet: #9aa3b0; --line: #3a3f47; --paper: #17191c;
  --card: #22252a; --train: #5b97ea; --val: #e5b256; --test: #58b87a; --worst: #ee7a6d } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70em; padding: 1em; color: var(--text);
  background: var(--paper); overflow-wrap: anywhere }
h1 { margin: .4em 0 0 } h2 { margin: 2em 0 .3em } h3 { margin: 1.4em 0 .4em; font-size: 1em } p { margin: .3em 0 }
.quiet { color: var(--quiet) } a { color: inherit; text-decoration-color: var(--quiet) }
code { background: var(--card); padding: .1em .3em; border-radius: 3px }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
th, td { padding: .25em .6em .25em 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; white-space: nowrap }
th[data-direction] { cursor: pointer; white-space: nowrap }
th[data-direction]::after { content: " ↕"; color: var(--quiet) }
th[data-direction="1"]::after { content: " ↑" } th[data-direction="-1"]::after { content: " ↓" }
.scroll { overflow-x: auto; overflow-wrap: break-word } .scroll table { width: auto }
.scroll th, .scroll td { padding: .25em .9em .25em 0 }
svg { max-width: 100%; height: auto } svg text { fill: currentColor }
.facts th { width: 9em; font-weight: normal; color: var(--quiet) }
figure { margin: 0; width: 96px; font-size: 12px; line-height: 1.3 }
"""
# A heading with the attribute data-direction sorts its table by the data-value of its cells; "" is always last.
SORTING = """
const headers = document.querySelectorAll("th[data-direction]");
for (const header of headers) header.onclick = () => {
  const body = header.closest("table").tBodies[0];
  const direction = header.dataset.direction === "1" ? -1 : 1;
  for (const each of header.parentNode.cells) each.dataset.direction = "";
  header.dataset.direction = direction;
  const value = row => row.cells[header.cellIndex].dataset.value;
  const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "") :
    direction * (isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", {numeric: true}) : a - b);
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
};
"""


def text(value: object) -> str:
    """Return a text that a page shows as it is, whatever characters it holds."""
    return escape(visible(value))


def document(title: str, content: str, style: str, script: str = "") -> str:
    """Return a page that needs no other file and no network.

    Args:
        title: as plain text.
        content: the HTML of its body.
        style: CSS after `STYLE`.
        script: JavaScript that runs when the body has been read.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    end = f"<script>{script}</script>\n" if script else ""
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<style>{STYLE}{style}</style></head>\n"
        f"<body>\n{content}\n{end}</body></html>\n"
    )


def facts_table(facts: Mapping[str, Sequence[str]]) -> str:
    """Return a table with a row per fact: its name, and its lines."""
    rows = (f"<tr><th>{text(name)}</th><td>{'<br>'.join(map(text, lines))}</td></tr>" for name, lines in facts.items())
    return f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>'


def embedded_json(value: Any) -> str:
    r"""Return JSON that may stand inside a script element: ASCII without <, so that no text in it ends the element.

    Example:
        >>> print(embedded_json("</script>\u2028"))
        "\u003c/script>\u2028"
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def data_uri(content: bytes) -> str:
    """Return the address that holds a PNG or JPEG file itself."""
    kind = "png" if content.startswith(PNG) else "jpeg"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
