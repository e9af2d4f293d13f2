"""Quality against latency: as a picture, and in characters."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase

from winnow_lab.advising.measured import Kind, Option, pareto

MARKS = ascii_lowercase + ascii_uppercase
"""One for each option, by rising latency."""
_STYLES = {Kind.RETRIEVE: "o", Kind.LEXICAL: "s", Kind.TWO_STAGE: "^", Kind.EXHAUSTIVE: "D"}
_WORDS = {
    Kind.RETRIEVE: "vectors, or both",
    Kind.LEXICAL: "words",
    Kind.TWO_STAGE: "two stages",
    Kind.EXHAUSTIVE: "exhaustive",
}


def marked(options: Sequence[Option]) -> list[tuple[str, Option]]:
    """A mark for each option, by rising latency; no mark past the fifty-second."""
    ordered = sorted(options, key=lambda option: (option.latency.p50, option.name))
    return [(MARKS[at] if at < len(MARKS) else "?", option) for at, option in enumerate(ordered)]


def scatter(options: Sequence[Option], *, budget: float, width: int = 72, height: int = 14) -> list[str]:
    """Lines of text: quality upwards, latency (median, logarithmic) to the right; the budget is a column of dots.

    Where two options would stand at one place, the mark of the quicker one stands.
    """
    logs = [math.log(option.latency.p50) for option in options]
    low, high = min(*logs, math.log(budget)), max(*logs, math.log(budget))
    qualities = [option.quality.mean for option in options]
    least, most = min(qualities), max(qualities)

    def column(seconds: float) -> int:
        return round((math.log(seconds) - low) / ((high - low) or 1) * (width - 1))

    def row(quality: float) -> int:
        return round((most - quality) / ((most - least) or 1) * (height - 1))

    cells = [[" "] * width for _ in range(height)]
    for line in cells:
        line[column(budget)] = "·"
    for mark, option in reversed(marked(options)):
        cells[row(option.quality.mean)][column(option.latency.p50)] = mark
    lines = [
        f"{most - (most - least) * at / (height - 1):6.3f} │{''.join(line)}".rstrip() for at, line in enumerate(cells)
    ]
    left, right = f"{math.exp(low) * 1000:,.0f} ms", f"{math.exp(high) * 1000:,.0f} ms"
    lines.append(f"{'':7}└{'─' * width}")
    lines.append(f"{'':8}{left}{right:>{width - len(left)}}")
    return lines


def picture(options: Sequence[Option], *, chosen: Option, budget: float, measure: str, title: str) -> bytes:
    """The front as a PNG: options with their intervals, the front joined, the budget and the recommendation shown."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    front = pareto(options)
    axes.plot(
        [option.latency.p50 * 1000 for option in front],
        [option.quality.mean for option in front],
        color="0.6",
        linewidth=1,
        label="nothing better is quicker",
    )
    for kind, style in _STYLES.items():
        of_kind = [option for option in options if option.kind is kind]
        if not of_kind:
            continue
        means = [option.quality.mean for option in of_kind]
        axes.errorbar(
            [option.latency.p50 * 1000 for option in of_kind],
            means,
            yerr=[
                [mean - option.quality.low for mean, option in zip(means, of_kind, strict=True)],
                [option.quality.high - mean for mean, option in zip(means, of_kind, strict=True)],
            ],
            fmt=style,
            markersize=4,
            elinewidth=0.5,
            capsize=2,
            alpha=0.8,
            label=_WORDS[kind],
        )
    for mark, option in marked(options):
        axes.annotate(mark, (option.latency.p50 * 1000, option.quality.mean), xytext=(5, 4), textcoords="offset points")
    place = (chosen.latency.p50 * 1000, chosen.quality.mean)
    axes.scatter(*place, s=160, facecolors="none", edgecolors="tab:red", label=f"recommended: {chosen.name}")
    axes.axvline(budget * 1000, color="tab:red", linestyle=":", linewidth=1, label=f"budget, {budget * 1000:,.0f} ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("latency, median, milliseconds")
    axes.set_ylabel(measure)
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=120)
    plt.close(figure)
    return written.getvalue()
