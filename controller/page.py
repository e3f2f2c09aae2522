"""A self-contained HTML page: no script, no network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from controller.plots import MissingExtra

STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --dim: #667080; --page: #f6f7f8;
  --card: #ffffff; --line: #dfe3e8; --bad: #c0392b; --good: #2e7d4f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --dim: #98a2b0; --page: #15181c;
  --card: #1e2227; --line: #333a42; --bad: #ff7b6b; --good: #6fcf97; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p, figcaption { color: var(--dim); margin: .3rem 0; }
.cards { display: grid; gap: .6rem; margin: 1.2rem 0;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem .8rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--dim); font-size: .8rem; }
.bad { color: var(--bad); } .good { color: var(--good); }
table { border-collapse: collapse; width: 100%; background: var(--card);
  border: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
tr.total td { font-weight: 600; }
figure { margin: 0 0 1.2rem; } figure img { max-width: 100%; height: auto; display: block;
  background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .4rem; }
.missing { border: 1px dashed var(--line); border-radius: 8px; padding: .8rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for the report, or the reason why there is none.

    Attributes:
        title: heading.
        caption: what it shows.
        data: PNG or GIF; None where it is missing.
        missing: why it is missing.
    """

    title: str
    caption: str = ""
    data: bytes | None = None
    missing: str = ""


def document(title: str, body: Iterable[str]) -> str:
    """Return a page with these parts."""
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(body) + "\n</body>\n</html>\n"


def drawn(title: str, caption: str, draw: Callable[[], bytes]) -> Picture:
    """Return what ``draw`` gives, or why it cannot be drawn."""
    try:
        return Picture(title, caption, draw())
    except MissingExtra as error:
        return Picture(title, caption, missing=str(error))


def figure(picture: Picture) -> str:
    """Return a picture with its heading, or why it is missing."""
    title = f"<h2>{escape(picture.title)}</h2>"
    if picture.data is None:
        return f'{title}\n<p class="missing">No picture: {escape(picture.missing)}</p>'
    media = "gif" if picture.data[:3] == b"GIF" else "png"
    source = f"data:image/{media};base64,{base64.b64encode(picture.data).decode()}"
    return (
        f'{title}\n<figure><img src="{source}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def section(title: str, content: str) -> str:
    """Return markup under a heading."""
    return f"<h2>{escape(title)}</h2>\n{content}"


def pairs(values: Mapping[str, object]) -> str:
    """Return names and values as a table."""
    return table(["", ""], [[key.replace("_", " "), shown(value)] for key, value in values.items()])


def shown(value: object) -> str:
    """Return a value as text: a dash for none, four digits of a number."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], emphasised: str = "") -> str:
    """Return a table of text; the row that begins with ``emphasised`` is printed strongly."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = []
    for row in rows:
        kind = ' class="total"' if row[0] == emphasised else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr{kind}>{cells}</tr>\n")
    return f"<table>\n<tr>{top}</tr>\n{''.join(lines)}</table>\n"
