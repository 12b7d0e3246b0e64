"""How a report's page looks: like a paper's, light or dark as the reader's system, and printed."""

STYLE = """
:root {
  --paper: #ffffff; --ink: #1a1a1a; --muted: #5f6368; --faint: #b9b9b9; --rule: #e0e0e0;
  --accent: #0b57a4; --wash: #f5f6f7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --ink: #e6e6e3; --muted: #a4a8ad; --faint: #6a6f75; --rule: #34383d;
    --accent: #8ab8ec; --wash: #1f2226;
  }
}
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { margin: 0; font: 1rem/1.55 Charter, "Bitstream Charter", "Source Serif 4", Georgia, serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3rem 0 1rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; counter-increment: section; }
main { counter-reset: section; }
h2::before { content: counter(section) "  "; color: var(--muted); white-space: pre; }
p { margin: 0 0 1rem; overflow-wrap: break-word; }
a { color: var(--accent); }
code, pre { font: .84em/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
.meta { color: var(--muted); font-size: .92rem; }
.remarks { margin: 0 0 1.25rem; padding: .7rem 1rem .7rem 2rem; background: var(--wash);
  border-left: 3px solid var(--accent); font-size: .95rem; overflow-wrap: anywhere; }
nav ol { margin: 0; padding-left: 1.4rem; columns: 2 16rem; font-size: .95rem; }
figure { margin: 1.75rem 0; }
figcaption { font-size: .92rem; line-height: 1.45; margin: .5rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; border-top: 2px solid var(--ink);
  border-bottom: 2px solid var(--ink); font-size: .9rem; font-variant-numeric: tabular-nums;
  min-width: min(100%, 24rem); }
th, td { padding: .28rem .55rem; vertical-align: baseline; white-space: nowrap; }
th:first-child, td:first-child { padding-left: .25rem; }
th:last-child, td:last-child { padding-right: .25rem; }
th { border-bottom: 1px solid var(--ink); font-weight: 600; }
tbody tr:nth-child(5n):not(:last-child) td { border-bottom: 1px solid var(--rule); }
.number { text-align: right; }
.text { text-align: left; }
figure.drawing svg { display: block; width: 100%; height: auto; min-width: min(36rem, 100%); }
@media (max-width: 40rem) { figure.drawing svg { min-width: 36rem; } }
figure.drawing svg text { fill: var(--ink); }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--accent); overflow-wrap: anywhere; }
details.source { margin: .4rem 0 0; font-size: .85rem; }
details.source summary { color: var(--muted); }
details.source p { margin: .4rem 0; }
details.source pre { margin: .2rem 0; padding: .5rem .7rem; max-height: 14rem; overflow: auto;
  background: var(--wash); }
.tiles { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem .8rem;
  grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); font-size: .82rem;
  line-height: 1.35; }
.tiles li { overflow-wrap: anywhere; }
.tiles img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--wash); margin-bottom: .3rem; }
.tiles span { color: var(--muted); display: block; }
@media (max-width: 40rem) { main { padding: 1.25rem .9rem 3rem; } h1 { font-size: 1.5rem; } }
@page { margin: 18mm 16mm; }
@media print {
  :root { --paper: #ffffff; --ink: #000000; --muted: #444444; --faint: #b9b9b9; --rule: #cccccc;
    --accent: #000000; --wash: #f3f3f3; }
  html { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  h2, h2 + p { break-after: avoid; }
  figure, tr, .tiles li { break-inside: avoid; }
  figure.table.long { break-inside: auto; }
  figcaption { break-after: avoid; }
  .scroll { overflow: visible; }
  figure.drawing svg { min-width: 0; }
  th, td { padding: .15rem .45rem; }
  details.source, nav { display: none; }
  details::details-content { content-visibility: visible; display: block; }
}
"""
