"""One self-contained HTML page: its look, and pieces that cannot hold anything unescaped. No scripts, no network."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.names import printable_lines
from pipeline.speak import wav_bytes

PLAYED_S = 5.0  # of a sound, at most
PLAYED_HZ = 24_000  # at most

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --ink: #1d2126; --soft: #5c646e; --line: #e2e3df; --accent: #1f6f8b;
  --second: #b8541f; --fill: #1f6f8b2e; --s1: #1f6f8b; --s2: #d08a2e; --s3: #7a5ea8; --s4: #4f8a52; --s5: #a8a8a0; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --card: #1c2024; --ink: #e6e8ea; --soft: #9aa4ae; --line: #30363c; --accent: #6cc0dc;
  --second: #f0a36b; --fill: #6cc0dc33; --s1: #6cc0dc; --s2: #e5b567; --s3: #b79fe0; --s4: #8ec792; --s5: #6d747b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 48px 24px 72px; }
header { margin-bottom: 28px; }
h1 { font-size: clamp(28px, 5vw, 42px); line-height: 1.1; letter-spacing: -0.02em; margin: 0 0 10px; font-weight: 650; }
h2 { font-size: 21px; letter-spacing: -0.01em; margin: 52px 0 12px; font-weight: 620; }
h3 { font-size: 15px; margin: 0; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 68ch; overflow-wrap: anywhere; }
.grid + *, .figures + p { margin-top: 16px; }
.kind { color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: 0.08em; text-transform: uppercase;
  margin-bottom: 6px; }
.soft, figcaption, small { color: var(--soft); }
small, figcaption { font-size: 13.5px; line-height: 1.45; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.figures { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(min(45%, 150px), 1fr));
  margin: 0; }
.card, .figures > div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; min-width: 0; }
.card { padding: 18px 20px; margin: 0; }
.figures > div { padding: 14px 16px; }
.figures dt { color: var(--soft); font-size: 13.5px; }
.figures dd { margin: 2px 0 0; font-size: 27px; line-height: 1.2; font-weight: 620; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figures small { display: block; margin-top: 3px; font-weight: 400; letter-spacing: 0; }
.card > * + * { margin-top: 12px; }
figure > h3 + svg { margin-top: 8px; }
svg { display: block; width: 100%; height: auto; overflow: visible; stroke-linejoin: round; }
svg text { font-family: inherit !important; }
audio { display: block; width: 100%; height: 36px; margin-top: 4px; }
.heads { display: flex; gap: 8px 10px; align-items: baseline; flex-wrap: wrap; }
.chip { font-size: 12.5px; padding: 1px 9px; border-radius: 99px; border: 1px solid var(--line); color: var(--soft);
  overflow-wrap: anywhere; }
.steps { display: flex; flex-wrap: wrap; gap: 10px; padding: 0; margin: 0 0 12px; list-style: none; }
.steps li { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 10px 14px;
  flex: 1 1 150px; min-width: 0; overflow-wrap: anywhere; }
.steps b, .steps small { display: block; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; width: 100%; min-width: 600px; font-size: 14.5px;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 13.5px; }
th, td { padding: 7px 16px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td { overflow-wrap: break-word; max-width: 34em; }
td:first-child { white-space: nowrap; }
code, pre { font: 13px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.stack { display: flex; gap: 2px; height: 26px; border-radius: 6px; overflow: hidden; }
.stack i { min-width: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; padding: 0; margin: 12px 0 0; list-style: none;
  font-size: 14.5px; }
.card > .chip { display: inline-block; margin: 0 6px 6px 0; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
.c1 { background: var(--s1); } .c2 { background: var(--s2); } .c3 { background: var(--s3); }
.c4 { background: var(--s4); } .c5 { background: var(--s5); }
summary { cursor: pointer; color: var(--soft); font-size: 13.5px; }
details code { display: block; margin-top: 6px; color: var(--soft); max-height: 9em; overflow: auto; }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 13.5px; overflow-wrap: anywhere; }
@media (max-width: 560px) { main { padding: 28px 16px 48px; } .card { padding: 14px; } .figures dd { font-size: 23px; }
  h2 { margin-top: 40px; } }
"""


class Html(str):
    """Text that is HTML already. Everything else is escaped by ``tag``."""


def tag(name: str, *inside: Any, **attributes: Any) -> Html:
    """An element. A trailing _ in an attribute's name is dropped, a _ within becomes -; None leaves it out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    said = "".join(f' {key}="{html.escape(printable_lines(str(value)))}"' for key, value in given.items())
    return Html(f"<{name}{said}>{joined(inside)}</{name}>")


def joined(pieces: Iterable[Any]) -> Html:
    """Pieces one after another, each escaped unless it is HTML; None and "" leave nothing."""
    return Html(
        "".join(p if isinstance(p, Html) else html.escape(printable_lines(str(p))) for p in pieces if p is not None)
    )


def page(title: str, *sections: Any) -> str:
    """The whole document."""
    head = joined([
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title), tag("style", Html(STYLE)),
    ])  # fmt: skip
    body = tag("main", *sections)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def heading(kind: str, name: str, *sentences: Any) -> Html:
    return tag("header", tag("div", kind, class_="kind"), tag("h1", name), *(tag("p", one) for one in sentences))


def section(title: str, *inside: Any) -> Html:
    return tag("section", tag("h2", title), *inside)


def figures(rows: Iterable[tuple[str, str, str]]) -> Html:
    """Headline figures as cards: what, how much, and a few words."""
    cards = [tag("div", tag("dt", what), tag("dd", much, tag("small", note))) for what, much, note in rows]
    return tag("dl", *cards, class_="figures")


def card(*inside: Any, element: str = "div") -> Html:
    return tag(element, *inside, class_="card")


def chart_card(title: str, picture: Html, caption: Any = None) -> Html:
    return card(tag("h3", title), picture, tag("figcaption", caption) if caption else None, element="figure")


def grid(*cards: Any) -> Html:
    return tag("div", *cards, class_="grid")


def steps(rows: Iterable[tuple[str, Any]]) -> Html:
    """What happened, in order: a name and its options."""
    return tag("ol", *(tag("li", tag("b", name), tag("small", said)) for name, said in rows), class_="steps")


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    top = tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads)))
    body = tag("tbody", *(tag("tr", *(tag("td", value) for value in row)) for row in rows))
    return tag("div", tag("table", top, body), class_="card scroll", tabindex="0")


def stack(shares: dict[str, float], words: dict[str, str], label: str) -> Html:
    """One bar, and below it what its parts are. The fifth colour is for all that come after it."""
    whole = sum(shares.values()) or 1.0
    parts = [(f"c{min(i, 5)}", name, share / whole) for i, (name, share) in enumerate(shares.items(), 1)]
    bar = [tag("i", class_=colour, style=f"flex:{share:.5f} 0 0") for colour, _, share in parts]
    names = [tag("li", tag("i", class_=colour), f"{words[name]} {share:.0%}") for colour, name, share in parts]
    return joined([
        tag("div", *bar, class_="stack", role="img", aria_label=label), tag("ul", *names, class_="legend")
    ])  # fmt: skip


def code(lines: Iterable[str]) -> Html:
    return card(tag("pre", tag("code", "\n".join(lines))))


def player(what: str, wave: np.ndarray, rate_hz: int) -> Html:
    """The first seconds of a sound (N,), within the page."""
    from pipeline.decode import resampled

    some = np.clip(np.asarray(wave, np.float32)[: round(PLAYED_S * rate_hz)], -1, 1)
    some = resampled(some, rate_hz, min(rate_hz, PLAYED_HZ))
    data = base64.b64encode(wav_bytes(some, min(rate_hz, PLAYED_HZ))).decode()
    sound = tag("audio", controls="", preload="metadata", src=f"data:audio/wav;base64,{data}", aria_label=what)
    return tag("div", tag("small", what), sound)


def tokens(codes: Sequence[int]) -> Html:
    """The numbers themselves, folded away."""
    return tag("details", tag("summary", f"{len(codes):,} tokens"), tag("code", " ".join(map(str, codes))))
