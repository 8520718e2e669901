# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How a rollout's page looks: one style sheet, light and dark, wide and narrow. It refers to nothing outside."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f8; --card: #ffffff; --text: #1b1f24; --muted: #5c6570; --line: #dfe3e7; --grid: #e9ecef;
  --link: #0b57b7; --ok: #1a7f37; --bad: #c3241d; --warn: #8a5a00;
  --bad-card: #fdf0ef; --warn-card: #fdf6e7; --ok-card: #edf7ef;
  --band0: #eef1f5; --band1: #e2e7ee; --gap: #b9453e;
  --turn: #b9c2cc; --on-step: #ffffff; --hatch: #ffffff;
  --running: #2767c9; --waiting: #d98a1f; --good: #8fb8a0; --failed: #d1322a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101316; --card: #181c20; --text: #e6e9ec; --muted: #98a2ad; --line: #2d343b; --grid: #242a30;
    --link: #7db3ff; --ok: #63c276; --bad: #ff7d74; --warn: #e5b454;
    --bad-card: #2c1917; --warn-card: #2a2213; --ok-card: #14251a;
    --band0: #1e242a; --band1: #283038; --gap: #e5736b;
    --turn: #46505a; --on-step: #0c0f12; --hatch: #0c0f12;
    --running: #5c97ec; --waiting: #e0a040; --good: #4c7a5f; --failed: #ff6259;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; padding: 28px 20px 48px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, header, footer { max-width: 1180px; margin: 0 auto; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; display: flex; flex-wrap: wrap; gap: 6px 14px; }
h2 { font-size: 17px; margin: 34px 0 10px; }
h3 { font-size: 14px; margin: 18px 0 6px; }
h3:first-child { margin-top: 2px; }
p { margin: 4px 0; }
a { color: var(--link); }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .92em; }
.muted { color: var(--muted); }
.ok { color: var(--ok); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.said { white-space: pre-wrap; overflow-wrap: anywhere; margin: 2px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
.pill {
  align-self: center; font-size: 14px; font-weight: 650; border-radius: 99px; padding: 2px 12px;
  border: 1.5px solid currentColor;
}
.facts { margin: 2px 0 0; color: var(--muted); overflow-wrap: anywhere; }
.changes { margin: 8px 0 0; padding: 0; list-style: none; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 20px 0 0; }
.tile b { display: block; font-size: 22px; line-height: 1.3; font-weight: 650; }
.tile .of { color: var(--muted); font-size: 13px; line-height: 1.4; }
.tile .what { font-size: 13px; color: var(--muted); }
.trouble { background: var(--bad-card); border-color: var(--bad); margin-top: 20px; }
.trouble.mild { background: var(--warn-card); border-color: var(--warn); }
.trouble h2 { margin: 0 0 6px; }
.trouble ul { margin: 6px 0; padding-left: 0; list-style: none; }
.trouble li { margin: 10px 0; }
.first { border-top: 1px solid var(--line); margin-top: 12px; padding-top: 10px; }
.legend {
  display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 10px; padding: 0; list-style: none; font-size: 13px;
}
.sw {
  display: inline-block; width: 14px; height: 10px; border-radius: 2px; margin-right: 6px; background: var(--turn);
}
.sw.turn { height: 4px; vertical-align: 3px; }
.sw.again {
  background: repeating-linear-gradient(135deg, var(--muted) 0 3px, var(--card) 3px 5px);
}
.sw.pause {
  background: radial-gradient(circle at 2.5px 2.5px, var(--muted) 1px, transparent 1.2px) 0 0 / 5px 5px;
}
.sw.gap { background: repeating-linear-gradient(135deg, var(--gap) 0 1px, transparent 1px 4px); }
.sw.running { background: var(--running); } .sw.waiting { background: var(--waiting); }
.sw.good { background: var(--good); } .sw.failed { background: var(--failed); }
.sw.limit { height: 0; border-top: 2px dashed var(--text); border-radius: 0; background: none; vertical-align: 3px; }
.note { font-size: 13px; color: var(--muted); margin: 10px 0 0; }
.keys { display: flex; flex-wrap: wrap; gap: 0 10px; font-size: 12px; color: var(--muted); }

.chart { padding: 0; }
.block { display: grid; grid-template-columns: 190px minmax(0, 1fr) 128px; column-gap: 12px; align-items: start; }
.block + .block.load { margin-top: 16px; }
.block + .block.strip { margin-top: 12px; }
.block .left, .block .right { font-size: 13px; line-height: 1.45; min-width: 0; }
.block .right { font-variant-numeric: tabular-nums; white-space: nowrap; }
.load .left > b, .load .right > * { display: block; }
.strip .right > *, .hosts .right b { margin-right: 6px; }
.axis .left { padding-top: 20px; font-size: 12px; }
.axis:last-child .left { padding-top: 0; }
.row { display: flex; align-items: center; min-width: 0; overflow: hidden; white-space: nowrap; }
.row a { overflow: hidden; text-overflow: ellipsis; color: inherit; text-decoration: none; }
.row a:hover, .row a:focus { text-decoration: underline; }
.ic { display: inline-block; width: 18px; flex: none; font-weight: 700; }
.ic.run { color: var(--running); }
svg { display: block; }
svg.defs { position: absolute; width: 0; height: 0; }
svg.mid { overflow: visible; }
svg text { font-size: 11px; fill: var(--muted); }
svg .tick { font-variant-numeric: tabular-nums; }
svg .band0 { fill: var(--band0); } svg .band1 { fill: var(--band1); }
svg .band-name { fill: var(--text); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .rule { stroke: var(--grid); stroke-width: 1; }
svg .pause { fill: url(#dots); }
svg .dot { fill: var(--muted); }
svg .gap { fill: url(#gap); }
svg .gap-line { stroke: var(--gap); stroke-width: 1.2; opacity: .55; }
svg .turn { fill: var(--turn); }
svg .step { stroke: var(--card); stroke-width: .5; }
svg .open { stroke: var(--text); stroke-width: 1.2; stroke-dasharray: 3 2; }
svg .s-other { fill: var(--turn); }
svg .again { fill: url(#hatch); }
svg .hatch-line { stroke: var(--hatch); stroke-width: 1.6; opacity: .75; }
svg .in { fill: var(--on-step); font-size: 11px; pointer-events: none; }
svg .cross {
  fill: var(--bad); font-size: 14px; font-weight: 700; stroke: var(--card); stroke-width: 3px; paint-order: stroke;
}
svg .area.running { fill: var(--running); } svg .area.waiting { fill: var(--waiting); }
svg .limit {
  fill: none; stroke: var(--text); stroke-width: 1.5; stroke-dasharray: 5 3; vector-effect: non-scaling-stroke;
}
svg .look { fill: var(--text); }
svg .good { fill: var(--good); } svg .failed { fill: var(--failed); }
svg .hover { fill: transparent; }

.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: break-word; }
th { font-weight: 600; color: var(--muted); white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
td:first-child { white-space: nowrap; }
td small { display: block; font-size: 12.5px; color: var(--muted); }
.inside table { width: auto; min-width: min(100%, 520px); }
.n { text-align: right; white-space: nowrap; }
td .said { margin: 0; max-width: 80ch; }
details { border-bottom: 1px solid var(--line); }
details:last-of-type { border-bottom: 0; }
summary {
  cursor: pointer; position: relative; padding: 7px 0 7px 22px; display: flex; flex-wrap: wrap; gap: 0 14px;
  align-items: baseline;
}
summary::-webkit-details-marker { display: none; }
summary::before { content: "▸"; color: var(--muted); position: absolute; left: 2px; }
details[open] > summary::before { content: "▾"; }
summary .name { font-weight: 600; overflow-wrap: anywhere; }
details > .inside { padding: 0 0 14px 22px; }
details:target { outline: 2px solid var(--link); outline-offset: 4px; border-radius: 4px; }
.list { margin: 0; padding-left: 20px; }
.list li { margin: 3px 0; overflow-wrap: anywhere; }
footer { margin-top: 36px; font-size: 13px; color: var(--muted); overflow-wrap: anywhere; }

.narrow { display: none; }
@media (max-width: 760px) {
  .narrow { display: inline; }
  .strip .right > * { display: block; }
  body { padding: 16px 12px 32px; }
  h1 { font-size: 21px; }
  .card { padding: 12px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  .tile b { font-size: 18px; }
  .block { grid-template-columns: 96px minmax(0, 1fr) 60px; column-gap: 8px; }
  .block .left, .block .right { font-size: 12px; }
  .block.load .left, .block.strip .left { grid-column: 1 / -1; }
  .block.load .mid, .block.strip .mid { grid-column: 2; }
  .block.load .right, .block.strip .right { white-space: normal; line-height: 1.3; }
  .ic { width: 16px; }
  .wide, svg .wide { display: none; }
  .scroll table { min-width: 520px; }
  details > .inside { padding-left: 4px; }
}
@media print {
  body { background: #fff; padding: 0; }
  .card { break-inside: avoid; }
}
"""


def stylesheet() -> str:
    """All of it, with the colours of the steps."""
    light = "".join(f" --s-{step.name}: {step.colour};" for step in steps.STEPS)
    dark = "".join(f" --s-{step.name}: {step.dark};" for step in steps.STEPS)
    uses = "".join(
        f".sw.s-{name} {{ background: var(--s-{name}); }} svg .s-{name} {{ fill: var(--s-{name}); }}\n"
        for name in (step.name for step in steps.STEPS)
    )
    return f"{_STYLE}:root {{{light} }}\n@media (prefers-color-scheme: dark) {{ :root {{{dark} }} }}\n{uses}"
