"""Parts of the page that show signals: live examples, sample grids, spectrograms with players."""

from __future__ import annotations

import functools
import html

import numpy as np

from omnijax.report import figures
from omnijax.report.inputs import Direction, RunFiles
from omnijax.report.signals import Signals
from omnijax.report.text import arrow, percent, section, table, told_route
from omnijax.report.theme import Figures

_TRIES = 5
_GRID_EACH = 3
_WIDTHS = {"text": "4.2rem", "image": "46px", "waveform": "minmax(0,2.2fr)"}
_SPOKEN_CLASSES = 3
_COMPLETIONS_EACH = 2


def ink_peak(run: RunFiles) -> int:
    """Value of full ink: the largest in any real image of the run."""
    real = [signals.values.max() for signals, _ in run.real().values() if signals.kind == "image"]
    return max(1, *(int(peak) for peak in real)) if real else 255


def live_examples(run: RunFiles) -> str:
    """One card for each direction: a few held-out inputs, what the model made of them, and the judge's reading."""
    cards = [_card(run, name, examples) for name, examples in _shown_directions(run).items()]
    return section(
        "examples",
        "What it can do",
        "Each line is one held-out record: what the model got, what it generated, and whether the judge read the right "
        "digit in it. These are the first examples of each direction with different digits, right or wrong.",
        f'<div class="grid cards">{"".join(cards)}</div>',
    )


def sample_grids(run: RunFiles, plots: Figures) -> str:
    """Real images beside generated ones, by class; nothing when the run has no images."""
    rows = {
        f"real {name}, held out": (signals.values, labels, labels)
        for name, (signals, labels) in run.real().items()
        if signals.kind == "image"
    }
    for name, examples in _shown_directions(run).items():
        if examples.target.kind == "image":
            rows[f"generated, {arrow(name)}"] = (examples.target.values, examples.labels, examples.judged)
    if not rows:
        return ""
    classes = 1 + max(int(labels.max()) for _, labels, _ in rows.values())
    paint = functools.partial(figures.sample_grid, rows, classes, ink_peak(run), _GRID_EACH)
    picture = plots.add("samples", paint, "Real and generated images by class", "wide")
    return section(
        "samples",
        "Drawn digits beside real ones",
        f"Up to {_GRID_EACH} images of each digit: real held-out ones, then those that the model drew for that digit. "
        "A frame marks a drawing in which the judge read another digit; a gap means that the run shows no more of it.",
        f'<figure class="card snug">{picture}</figure>',
    )


def completed(run: RunFiles, plots: Figures) -> str:
    """Pictures completed from one half, with how often that went well; nothing when the run was not asked for it."""
    measured = run.evaluation["completions"]
    blocks = {f"from the {half} half": found for half in measured if (found := run.completions(half)) is not None}
    if not measured:
        return ""
    rows = [
        [
            f"from the {html.escape(half)} half",
            f"<strong>{percent(entry['accuracy'])}</strong> {_error(entry['standard_error'])}",
            f"{percent(entry['blank_accuracy'])} {_error(entry['blank_standard_error'])}",
            f"{percent(entry['half_accuracy'])} {_error(entry['half_standard_error'])}",
            f"{entry['examples']:,}",
            percent(entry["decodable"]),
        ]
        for half, entry in measured.items()
    ]
    head = ["known", "right after completion", "other half left blank", "judge of halves", "pictures", "decodable"]
    figure = ""
    if blocks:
        classes = 1 + max(int(block.labels.max()) for block in blocks.values())
        paint = functools.partial(figures.completion_grid, blocks, classes, ink_peak(run), _COMPLETIONS_EACH)
        picture = plots.add("completions", paint, "Pictures completed from one half", "wide")
        figure = f'<figure class="card snug">{picture}</figure>'
    return section(
        "completions",
        "Pictures completed from one half",
        "Each fragment is written behind its position, and the model met pictures in random order, so that it can go "
        "on from any part of one. Here it gets one half of held-out pictures and draws the other; nothing tells it the "
        "digit. The share of completed pictures in which the judge reads the right digit, ± one standard error, beside "
        "that of the same halves with nothing in the other one, and the share in which a judge that was fitted on "
        "such halves is right: what a half can tell. A frame marks a completion that is read as another digit.",
        f'<div class="grid">{figure}<div class="card snug">{table(head, rows)}</div></div>',
    )


def _error(share: float) -> str:
    return f'<span class="error">± {100 * share:.1f}</span>'


def spoken(run: RunFiles, plots: Figures) -> str:
    """Spectrograms with players: the same words real, through the codebook, and generated."""
    sources: dict[str, tuple[Signals, np.ndarray]] = {
        f"real/{name}": pair for name, pair in run.real().items() if pair[0].kind == "waveform"
    }
    for name, examples in _shown_directions(run).items():
        if examples.target.kind == "waveform":
            sources[name] = (examples.target, examples.labels)
    if not sources:
        return ""
    everywhere = set.intersection(*(set(labels.tolist()) for _, labels in sources.values()))
    classes = sorted(everywhere)[:: max(1, len(everywhere) // _SPOKEN_CLASSES)][:_SPOKEN_CLASSES]
    chosen = {
        (label, origin): signals.waveform(int(np.flatnonzero(labels == label)[0]))
        for label in classes
        for origin, (signals, labels) in sources.items()
    }
    seconds = max((len(wave) for wave in chosen.values()), default=0) / run.sample_rate_hz
    blocks = []
    for label in classes:
        panels = [_panel(run, plots, chosen[label, origin], seconds, origin, label) for origin in sources]
        blocks.append(f'<h3>Digit {label}</h3><div class="grid sounds">{"".join(panels)}</div>')
    return section(
        "speech",
        "Spoken digits beside real ones",
        "Energy by time and frequency, 60 dB from black to bright. The real word, the same word through the codebook "
        "and back (as good as generated speech can sound), and the first generated example of the same digit.",
        "".join(blocks) or '<p class="note">No digit was shown by all origins.</p>',
    )


def _shown_directions(run: RunFiles) -> dict[str, Direction]:
    found = {name: run.direction(name) for name in run.evaluation["directions"]}
    return {name: examples for name, examples in found.items() if examples is not None and len(examples.labels)}


def _card(run: RunFiles, name: str, examples: Direction) -> str:
    peak = ink_peak(run)
    columns = f"{_WIDTHS[examples.source.kind]} 1.1rem {_WIDTHS[examples.target.kind]} minmax(4.7rem,1fr)"
    lines = []
    for index in examples.distinct(_TRIES):
        label, judged = int(examples.labels[index]), int(examples.judged[index])
        classes = len(run.evaluation["confusion"][name])
        reading = f"read as {judged}" if 0 <= judged < classes else "not a digit"
        verdict = "right" if judged == label else "wrong"
        given = examples.source.show(index, peak, f"the digit {label}, held out")
        made = examples.target.show(index, peak, f"what was generated for the digit {label}")
        mark = f"✓ {judged}" if judged == label else f"✗ {reading}, is {label}"
        lines.append(
            f'<div class="try" style="grid-template-columns:{columns}"><span>{given}</span><span>→</span>'
            f'<span>{made}</span><span class="verdict {verdict}">{mark}</span></div>'
        )
    return (
        f'<article class="card"><header><h3>{html.escape(arrow(name))}</h3>'
        f'<span class="score">{percent(run.evaluation["directions"][name])}</span></header>'
        f'<p class="route">{told_route(run.evaluation["routes"][name])}</p>{"".join(lines)}</article>'
    )


def _panel(run: RunFiles, plots: Figures, waveform: np.ndarray, seconds: float, origin: str, label: int) -> str:
    told = origin.removeprefix("real/").replace("_codec", ", through the codebook")
    told = f"real {told}" if origin.startswith("real/") else f"generated, {arrow(origin)}"
    paint = functools.partial(figures.spectrogram, waveform, seconds, run.sample_rate_hz)
    name = f"spectrogram_{label}_{origin.replace('/', '_').replace('->', '_to_')}"
    picture = plots.add(name, paint, f"Spectrogram of {label}, {told}", "small")
    button = Signals(waveform[None], np.array([len(waveform)]), run.sample_rate_hz).show(0, 1, f"{label}, {told}")
    return f'<figure class="card">{picture}<figcaption>{html.escape(told)}</figcaption>{button}</figure>'
