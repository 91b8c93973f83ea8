"""How a report looks: the system's own fonts, few colours, light and dark, narrow and wide, paper.

The hues are told apart by people who do not see all colours: they differ in lightness too.
"""

from __future__ import annotations

__all__ = ["STYLE"]

_DARK = """
  --page:#0f1317; --card:#171c22; --ink:#e8ecf0; --soft:#9aa7b4; --line:#29313a; --faint:#1e252d;
  --c0:#6ea8ee; --c1:#f0a257; --c2:#4fc3a7; --c3:#d68ccc; --c4:#d9c25a; --c5:#8fdcf2; --c6:#8a96a3;
  --good:#4fc38a; --warn:#e8b04a; --bad:#f2807a; --heat:86 156 240; --deep:#08111c; --fill:46%;
"""

STYLE = (
    f"""
:root {{
  color-scheme:light dark;
  --page:#f6f7f8; --card:#fff; --ink:#1a2129; --soft:#5b6875; --line:#dfe4e8; --faint:#eef1f3;
  --c0:#2a66b1; --c1:#c8690f; --c2:#14866c; --c3:#a5479a; --c4:#8f7700; --c5:#3f9cc4; --c6:#76828e;
  --good:#14794b; --warn:#9a6200; --bad:#b3261e; --heat:27 92 173; --deep:#fff; --fill:36%;
  --mono:ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;
}}
@media screen and (prefers-color-scheme:dark) {{ :root {{{_DARK}}} }}
"""
    + r"""
*,*::before,*::after { box-sizing:border-box }
html { font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  background:var(--page); color:var(--ink); -webkit-text-size-adjust:100%;
  font-variant-numeric:tabular-nums; scroll-padding-top:1rem }
body { margin:0 auto; max-width:1120px; padding:40px 20px 24px }
h1,h2,h3,p,figure,dl,dd,ul { margin:0; padding:0 }
code,kbd,pre { font-family:var(--mono); font-size:.88em }
code,th,td { overflow-wrap:anywhere }
small { font-size:12px; color:var(--soft); font-weight:400 }
a { color:inherit }

header .over { font-size:12px; letter-spacing:.08em; text-transform:uppercase; color:var(--soft) }
h1 { font-size:38px; line-height:1.15; font-weight:650; letter-spacing:-.02em; margin:4px 0 6px;
  overflow-wrap:anywhere }
.where { color:var(--soft) }
.saved { color:var(--soft); margin-top:2px }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:1px;
  margin-top:24px; background:var(--card); border:1px solid var(--line); border-radius:10px;
  overflow:hidden }
.tiles div { outline:1px solid var(--line); padding:14px 16px; min-width:0 }
.tiles dt { font-size:12px; color:var(--soft); overflow-wrap:anywhere }
.tiles dd { font-size:24px; line-height:1.25; font-weight:600; letter-spacing:-.01em;
  overflow-wrap:anywhere }
.tiles .about { font-size:12px; font-weight:400; letter-spacing:0; color:var(--soft) }

nav { display:flex; flex-wrap:wrap; gap:4px 18px; margin:20px 0 0; font-size:13px }
nav a { color:var(--soft); text-decoration:none; padding:2px 0;
  border-bottom:1px solid transparent }
nav a:hover,nav a:focus-visible { color:var(--ink); border-color:currentColor }

main { display:grid; grid-template-columns:repeat(2,minmax(0,1fr)); gap:16px; margin-top:16px }
section { grid-column:1/-1; background:var(--card); border:1px solid var(--line);
  border-radius:10px; padding:20px; min-width:0 }
section.config,section.tokenizer { grid-column:auto }
h2 { font-size:17px; font-weight:650; margin-bottom:14px; letter-spacing:-.005em }
h3 { font-size:14px; font-weight:600; margin:20px 0 8px }
.none,.note { color:var(--soft); font-size:13px }
.note { margin:10px 0 }
.scroll { overflow-x:auto; max-width:100% }
footer { margin-top:20px; font-size:12px; color:var(--soft) }

table { border-collapse:collapse; font-size:13px }
th { font-weight:500; text-align:left }
.numbers { width:100% }
.numbers th,.numbers td { padding:6px 12px 6px 0; border-bottom:1px solid var(--line);
  text-align:right; white-space:nowrap; overflow-wrap:normal }
.numbers th:first-child { text-align:left; white-space:normal; overflow-wrap:anywhere;
  min-width:9em }
.numbers thead th { color:var(--soft); font-weight:400; font-size:12px }
.numbers tbody tr:last-child > * { border-bottom:0 }
.files th:last-child,.files td:last-child { text-align:left; padding-left:8px }
.files .digest { color:var(--soft); font-size:11px }
.facts { width:100%; table-layout:fixed }
.facts th,.facts td { padding:5px 0; border-bottom:1px solid var(--line); vertical-align:top }
.facts th { width:38%; color:var(--soft); font-weight:400; padding-right:12px }
.facts tr:last-child > * { border-bottom:0 }
.facts pre { margin:0; white-space:pre-wrap; overflow-wrap:anywhere; max-height:12em;
  overflow-y:auto }
.symbols { margin-top:12px; display:flex; flex-wrap:wrap; gap:3px }
kbd { min-width:1.7em; padding:0 .35em; text-align:center; background:var(--faint);
  border-radius:3px }

.panel { list-style:none; display:grid; gap:14px 28px;
  grid-template-columns:repeat(auto-fill,minmax(min(228px,100%),1fr)) }
.panel > li { display:flex; gap:10px; min-width:0; font-size:13px }
.panel > li > i { flex:none; width:20px; height:20px; border-radius:50%;
  font:700 12px/20px system-ui; text-align:center; color:var(--card);
  background:var(--soft); margin-top:1px }
.panel > .good > i { background:var(--good) }
.panel > .warn > i { background:var(--warn) }
.panel > .bad > i { background:var(--bad) }
.panel > .bad { grid-column:1/-1 }
.panel .bad b { color:var(--bad) }
.panel div { min-width:0 }
.panel b { display:block; font-weight:600 }
.panel span { color:var(--soft); overflow-wrap:anywhere }
.panel summary { color:var(--soft); font-size:12px; cursor:pointer }
.panel details ul { list-style:none; max-height:14em; overflow-y:auto }

.key { display:inline-block; width:10px; height:10px; border-radius:2px; margin-right:8px;
  vertical-align:0 }
.parts tbody th { position:relative; padding-left:20px }
.parts .key { position:absolute; left:0; top:11px }
.treemap { position:relative; aspect-ratio:2/1; container-type:inline-size; overflow:hidden;
  border-radius:4px; margin-bottom:14px }
.treemap div { position:absolute; overflow:hidden }
.frame { background:var(--faint); border-radius:3px }
.frame > b { position:absolute; inset:1px 6px auto; font:500 11px/17px system-ui;
  color:var(--soft); white-space:nowrap; overflow:hidden; text-overflow:ellipsis }
.frame .frame { background:color-mix(in srgb,var(--line) 65%,var(--faint)) }
.tile { border-radius:2px; font-size:11px; line-height:15px; color:var(--ink) }
.tile > * { margin:0 5px; white-space:nowrap; overflow:hidden; text-overflow:ellipsis }
.tile > b { font-weight:500; padding-top:2px }
.tile > span { opacity:.72 }
.tile:hover { outline:2px solid var(--ink); outline-offset:-2px }
.treemap :is(b,span) { display:none }
@container (min-width:280px) { .treemap .w280 { display:block } }
@container (min-width:400px) { .treemap .w400 { display:block } }
@container (min-width:520px) { .treemap .w520 { display:block } }
@container (min-width:640px) { .treemap .w640 { display:block } }
@container (min-width:760px) { .treemap .w760 { display:block } }
@container (min-width:880px) { .treemap .w880 { display:block } }
@container (min-width:1000px) { .treemap .w1000 { display:block } }
.f0 { background:color-mix(in srgb,var(--c0) var(--fill),var(--card)) }
.f1 { background:color-mix(in srgb,var(--c1) var(--fill),var(--card)) }
.f2 { background:color-mix(in srgb,var(--c2) var(--fill),var(--card)) }
.f3 { background:color-mix(in srgb,var(--c3) var(--fill),var(--card)) }
.f4 { background:color-mix(in srgb,var(--c4) var(--fill),var(--card)) }
.f5 { background:color-mix(in srgb,var(--c5) var(--fill),var(--card)) }
.f6 { background:color-mix(in srgb,var(--c6) var(--fill),var(--card)) }

.charts { display:flex; flex-wrap:wrap; gap:28px 32px }
.chart { flex:1 1 260px; min-width:0 }
.chart:first-child { flex-basis:100% }
.chart figcaption { display:flex; flex-wrap:wrap; gap:2px 24px; font-size:13px; margin-bottom:8px }
.chart figcaption b { font-weight:600; margin-right:8px }
.chart .key { height:3px; width:16px; vertical-align:4px }
.axes { position:relative; height:170px; margin:8px 10px 24px 58px }
.chart:first-child .axes { height:260px }
.plot,.plot svg { position:absolute; inset:0; width:100%; height:100%; overflow:visible }
.axes > span { position:absolute; font-size:11px; line-height:1; color:var(--soft);
  white-space:nowrap }
.axes > .top { right:calc(100% + 8px); transform:translateY(-50%) }
.axes > .left { top:calc(100% + 8px); transform:translateX(-50%) }
.grid { stroke:var(--line); stroke-width:1; vector-effect:non-scaling-stroke; fill:none }
.curve { fill:none; stroke-width:2; vector-effect:non-scaling-stroke; stroke-linejoin:round }
.dot { fill:none; stroke-width:6; stroke-linecap:round; vector-effect:non-scaling-stroke }
.dot.far { stroke-width:12; stroke-opacity:0 }
.dot:hover { stroke-width:10; stroke-opacity:1 }
.s0 { stroke:var(--c0) } .s1 { stroke:var(--c1) } .s2 { stroke:var(--c2) }
.s3 { stroke:var(--c3) } .s4 { stroke:var(--c4) }
.curve.s1 { stroke-dasharray:7 3 } .curve.s2 { stroke-dasharray:2 3 }
.curve.s3 { stroke-dasharray:9 3 2 3 }
.m0 { background:var(--c0) } .m1 { background:var(--c1) } .m2 { background:var(--c2) }
.m3 { background:var(--c3) } .m4 { background:var(--c4) }

.heat { margin-top:10px; border-collapse:separate; border-spacing:2px; font-size:12px }
.heat caption { text-align:left; color:var(--soft); font-size:12px; padding-bottom:4px }
.heat th { color:var(--soft); font-weight:400; white-space:nowrap; padding:0 8px 0 0;
  overflow-wrap:normal; position:sticky; left:0; background:var(--card) }
.heat thead th { position:static; height:1px; vertical-align:bottom; padding:0 }
.heat thead th span { writing-mode:vertical-rl; transform:rotate(180deg); padding:4px 0;
  max-height:16em; overflow:hidden; text-overflow:ellipsis; margin:auto; display:block }
.heat td { min-width:54px; height:26px; padding:0 6px; text-align:center; border-radius:3px;
  white-space:nowrap; background:rgb(var(--heat)/var(--a,0)) }
.heat td.deep { color:var(--deep) }
.heat tbody td[style] { box-shadow:inset 0 0 0 1px var(--line) }
.heat td.no { color:var(--soft); background:none }
.heat thead td { background:none }
.heat.others td:last-child { width:220px; min-width:80px; background:none; padding:0 }
.bar { display:block; height:8px; border-radius:2px; background:rgb(var(--heat)/.75) }
.legend { display:inline-block; margin-left:8px; white-space:nowrap }
.ramp { display:inline-block; width:90px; height:10px; border-radius:2px; vertical-align:-1px;
  margin:0 4px; background:linear-gradient(90deg,rgb(var(--heat)/.06),rgb(var(--heat)));
  box-shadow:inset 0 0 0 1px var(--line) }

.values details { border-top:1px solid var(--line); padding:10px 0 }
.values details:first-of-type { border-top:0; padding-top:0 }
summary { cursor:pointer }
.values summary b { font-weight:600; font-size:13px; margin-right:10px; overflow-wrap:anywhere }
.cards { display:grid; grid-template-columns:repeat(auto-fill,minmax(148px,1fr)); gap:14px 18px;
  padding:12px 0 6px }
.card { min-width:0; font-size:12px }
.card figcaption { white-space:nowrap; overflow:hidden; text-overflow:ellipsis; direction:rtl;
  text-align:left; font-size:12px; unicode-bidi:plaintext }
.card svg { display:block; width:100%; height:44px; border-bottom:1px solid var(--line) }
.bars { fill:var(--c0); opacity:.8 }
.zero { stroke:var(--ink); stroke-width:1; opacity:.35; vector-effect:non-scaling-stroke }
.ends { display:flex; justify-content:space-between; gap:6px; font-size:10.5px;
  color:var(--soft); padding-top:2px }
.ends .shape { opacity:.8; overflow:hidden; text-overflow:ellipsis; white-space:nowrap }
.mark { font-size:11px; font-weight:600 }
.mark.bad { color:var(--bad) }

@media (max-width:640px) {
  body { padding:24px 12px 16px }
  h1 { font-size:29px }
  section { padding:16px 12px }
  section.config,section.tokenizer { grid-column:1/-1 }
  .tiles { grid-template-columns:repeat(2,1fr) }
  .tiles dd { font-size:20px }
  .treemap { aspect-ratio:1/1 }
  .parts :is(th,td):nth-child(-n+3):not(:first-child) { display:none }
  .axes { margin-left:46px }
  .chart:first-child .axes { height:210px }
  .cards { grid-template-columns:repeat(2,minmax(0,1fr)) }
}
@media print {
  html { font-size:12px; background:#fff }
  body { max-width:none; padding:0 }
  nav { display:none }
  section,.tiles { break-inside:avoid; border-color:#ccc }
  section.values,section.difference { break-inside:auto }
  .card,.chart,.treemap { break-inside:avoid }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact }
}
@media (prefers-reduced-motion:no-preference) { html { scroll-behavior:smooth } }
"""
)
