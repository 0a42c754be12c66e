"""The page's own style and script; nothing is loaded from elsewhere."""

STYLE = """
:root { color-scheme: light dark; --paper: #f5f6f8; --card: #ffffff; --ink: #1c2026; --muted: #5d6673; --line: #d9dee5;
  --accent: #2464ab; --wash: #dbe7f5; --good: #2b7d50; --bad: #c4420f; }
@media (prefers-color-scheme: dark) { :root { --paper: #121519; --card: #1b1f25; --ink: #e8eaee; --muted: #9aa3af;
  --line: #363d47; --accent: #74aef0; --wash: #2a3f58; --good: #6cc594; --bad: #ff8f5c; }
  .tile { filter: invert(1) hue-rotate(180deg) brightness(.92); } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1rem 4rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; margin: 0 0 .7rem; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .35rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 0; }
h3:has(+ .sounds) { margin: 1.2rem 0 .5rem; }
p { margin: 0 0 1rem; max-width: 68ch; }
.note, figcaption, .route, th, .facts dt { color: var(--muted); font-size: .875rem; }
.lead { font-size: 1.1rem; }
.run { color: var(--muted); margin: 0 0 .4rem; }
a { color: var(--accent); }
code, pre, .word { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
code { overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: .7rem 2.2rem; margin: 1.4rem 0 0; }
.facts dd { margin: 0; font-weight: 600; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.grid { display: grid; gap: 1rem; }
.cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 318px), 1fr)); }
.pair { align-items: start; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
.sounds { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin-bottom: 1rem; gap: .7rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; min-width: 0; }
.snug { max-width: 740px; }
.card + .note { margin-top: .9rem; }
.sounds .card { display: flex; flex-direction: column; padding: .7rem; }
.sounds .player { margin-top: auto; }
.card header { display: flex; justify-content: space-between; gap: .6rem; align-items: baseline; }
.card .route { margin: 0 0 .6rem; }
.score { font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.try { display: grid; gap: .55rem; align-items: center; min-height: 52px;
  border-top: 1px solid var(--line); padding: .2rem 0; }
.try > :nth-child(2) { color: var(--muted); text-align: center; }
.verdict { text-align: right; font-size: .8rem; line-height: 1.2; color: var(--good); }
.verdict.wrong { color: var(--bad); font-weight: 600; }
.word { font-size: 1.05rem; overflow-wrap: anywhere; }
.nothing { color: var(--muted); font-style: italic; }
.tile { display: block; image-rendering: pixelated; border-radius: 4px; border: 1px solid #d9dee5; background: #fff; }
.player { display: block; min-width: 0; }
.player audio { width: 100%; height: 36px; display: block; }
.player button { display: flex; align-items: center; gap: .4rem; width: 100%; height: 40px;
  padding: 0 .6rem; cursor: pointer; border: 1px solid var(--line); border-radius: 20px; color: var(--accent);
  overflow: hidden; background: linear-gradient(90deg, var(--wash) calc(var(--played, 0) * 100%), transparent 0); }
.player button[hidden] { display: none; }
.player button:hover, .player button:focus-visible { border-color: var(--accent); }
.go { width: 10px; height: 10px; flex: none; fill: currentColor; }
.wave { flex: 1; min-width: 0; height: 26px; stroke: currentColor; stroke-width: 1.2; }
figure { margin: 0; min-width: 0; }
figcaption { margin: .35rem 0 .2rem; line-height: 1.4; }
picture { display: block; }
picture img { display: block; width: 100%; height: auto; }
picture.wide { max-width: 640px; margin: 0 auto; }
picture.small { max-width: 380px; margin: 0 auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .5rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; vertical-align: bottom; line-height: 1.25; }
tbody th { color: var(--ink); font-size: 1rem; line-height: inherit; font-weight: 600; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child > * { border-bottom: 0; }
.lean td:nth-child(2), .lean th:nth-child(2) { text-align: left; width: 42%; }
.lean th { overflow-wrap: break-word; }
table .route { display: block; font-weight: 400; line-height: 1.3; }
.bar { display: block; position: relative; height: 8px; min-width: 84px; margin: .35rem 0 .2rem; border-radius: 4px;
  background: var(--line); }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--accent); }
.bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink); }
.error { color: var(--muted); font-weight: 400; white-space: nowrap; }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow: auto; max-height: 480px; font-size: .8rem; line-height: 1.45; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; padding: 1rem; }
.made { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 0; }
.made dt { color: var(--muted); }
.made dd { margin: 0; min-width: 0; }
@media (max-width: 480px) { .lean td:nth-child(2), .lean th:nth-child(2) { width: auto; } .bar { min-width: 64px; }
  .facts { display: grid; grid-template-columns: 1fr 1fr; }
  th, td { padding: .5rem .28rem; font-size: .86rem; } tbody th { font-size: .9rem; }
  .made { grid-template-columns: 1fr; gap: 0; } .made dd { margin-bottom: .6rem; } .card { padding: .8rem; } }
@media print { .player { display: none; } .card { break-inside: avoid; } }
"""

# Without scripts each player keeps the browser's own controls; with them it becomes a button with the envelope on it.
SCRIPT = """
for (const player of document.querySelectorAll('.player')) {
  const [audio, button] = [player.querySelector('audio'), player.querySelector('button')];
  audio.hidden = true; audio.removeAttribute('controls'); button.hidden = false;
  const draw = () => {
    button.style.setProperty('--played', audio.paused ? 0 : audio.currentTime / audio.duration);
    if (!audio.paused) requestAnimationFrame(draw);
  };
  audio.addEventListener('play', draw);
  button.addEventListener('click', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== audio) other.pause();
    audio.currentTime = 0; audio.play();
  });
}
"""
