"""A report as one page of HTML: no script, and nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import re
from html import escape
from itertools import count

from PIL import Image

from fomo_dagster.reports.content import Block, Figure, Fold, Pictures, Report, Source, Table
from fomo_dagster.reports.style import STYLE

SHORTEST = 96  # pixels to which pictures are shown that are smaller
MOST_TOGETHER = 20  # rows that are printed on one page
LONGEST = 192  # pixels that a picture has at most
REM_OF_INCH = 7.1  # the widest figures fill the page
# What figures are drawn with → what takes its place where the page has its own colours.
_INKS = {
    "#000000": "var(--ink)", "#ffffff": "var(--paper)", "#e3e3e3": "var(--rule)",
    "#b9b9b9": "var(--faint)", "#767676": "var(--muted)",
}  # fmt: skip


def as_html(report: Report) -> str:
    """The whole page; tables and figures are numbered in order."""
    page = _Page()
    sections = [
        f'<section id="{section.name}"><h2>{escape(section.title)}</h2>'
        + "".join(page.block(block) for block in section.blocks)
        + "</section>"
        for section in report.sections
    ]
    contents = "".join(
        f'<li><a href="#{section.name}">{escape(section.title)}</a></li>'
        for section in report.sections
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in report.remarks)
    noted = f'<ul class="remarks">{remarks}</ul>' if remarks else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{escape(report.title)}</h1>"
        f'<p class="meta">Newest result: {escape(report.newest)} UTC. Made again by '
        f"<code>{escape(report.command)}</code></p>{noted}"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav></header>'
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


class _Page:
    def __init__(self) -> None:
        self._tables, self._figures = count(1), count(1)

    def block(self, block: Block) -> str:
        if isinstance(block, str):
            return f"<p>{escape(block)}</p>"
        if isinstance(block, tuple):
            return f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in block)}</ul>"
        if isinstance(block, Fold):
            inside = "".join(self.block(one) for one in block.blocks)
            return f"<details><summary>{escape(block.title)}</summary>{inside}</details>"
        if isinstance(block, Table):
            return self._table(block)
        if isinstance(block, Figure):
            return self._figure(block)
        return self._pictures(block)

    def _table(self, table: Table) -> str:
        kinds = ["number" if table.is_number(name) else "text" for name in table.headings]
        heads = "".join(
            f'<th scope="col" class="{kind}">{escape(name)}</th>'
            for kind, name in zip(kinds, table.headings, strict=True)
        )
        best = {(row, name) for name, rows in table.best.items() for row in rows}
        rows = []
        for number, cells in enumerate(table.cells()):
            written = [
                f'<td class="{kind}">'
                + (f"<strong>{escape(cell)}</strong>" if (number, name) in best else escape(cell))
                + "</td>"
                for kind, name, cell in zip(kinds, table.headings, cells, strict=True)
            ]
            rows.append(f"<tr>{''.join(written)}</tr>")
        caption = f"<b>Table {next(self._tables)}.</b> {escape(table.caption)}"
        kind = "table long" if len(rows) > MOST_TOGETHER else "table"
        return (
            f'<figure class="{kind}" id="table-{escape(table.name)}">'
            f"<figcaption>{caption}</figcaption>"
            f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>{_source(table.source)}</figure>"
        )

    def _figure(self, figure: Figure) -> str:
        number = next(self._figures)
        caption = f"<b>Figure {number}.</b> {escape(figure.caption)}"
        return (
            f'<figure class="drawing" id="figure-{escape(figure.name)}">'
            f'<div class="scroll" tabindex="0">{_inline(figure, number)}</div>'
            f"<figcaption>{caption}</figcaption>{_source(figure.source)}</figure>"
        )

    def _pictures(self, pictures: Pictures) -> str:
        tiles = "".join(
            f'<li><img alt="" src="{_data_address(tile.image)}" loading="lazy">'
            f"<b>{escape(tile.heading)}</b> <span>{escape(tile.text)}</span></li>"
            for tile in pictures.tiles
        )
        return (
            f'<figure class="pictures"><figcaption>{escape(pictures.caption)}</figcaption>'
            f'<ul class="tiles">{tiles}</ul>{_source(pictures.source)}</figure>'
        )


def _source(source: Source) -> str:
    digests = "\n".join(f"{digest}  {asset}" for asset, digest in source.digests.items())
    return (
        '<details class="source"><summary>Source</summary>'
        f"<p>Made again by <code>{escape(source.command)}</code></p>"
        f"<p>The rows: <code>fomo sql {escape(_quoted(source.query))}</code></p>"
        f"<p>Made from:</p><pre>{escape(digests)}</pre></details>"
    )


def _quoted(query: str) -> str:
    return '"' + re.sub(r'(["\\$`])', r"\\\1", query) + '"'


def _inline(figure: Figure, number: int) -> str:
    """The figure as part of the page: its names are its own, and black, white and greys are the
    page's."""
    text = figure.svg.decode()
    text = text[text.index("<svg") :]
    # Other figures of the page have the same names.
    text = re.sub(r'\bid="([^"]*)"', rf'id="f{number}-\1"', text)
    text = re.sub(r'href="#([^"]*)"', rf'href="#f{number}-\1"', text)
    text = re.sub(r"url\(#([^)]*)\)", rf"url(#f{number}-\1)", text)

    def with_inks(style: re.Match[str]) -> str:
        return re.sub(r"#[0-9a-f]{6}", lambda ink: _INKS.get(ink[0], ink[0]), style[0])

    text = re.sub(r'style="[^"]*"', with_inks, text)
    label = escape(figure.caption, quote=True)
    width = f"max-width: {figure.drawing.get_figwidth() * REM_OF_INCH:.1f}rem"
    return text.replace("<svg", f'<svg role="img" aria-label="{label}" style="{width}"', 1)


def _data_address(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((LONGEST, LONGEST))
    if max(small.size) < SHORTEST:
        times = -(-SHORTEST // max(small.size))
        small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
