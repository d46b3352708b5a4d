"""The plot: time and bytes of a step over the number of steps, as SVG that can be read on light and on dark pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiment import Curve
from benchmarks.results import Record

_PANELS = {
    "step_ms": "ms a step",
    "history_bytes": "bytes of history a step",
    "store_bytes": "bytes in the store a step",
}
_INK = "#7d8590"  # has the same contrast with white and with black
_SIZE = (4.2, 3.6)  # inches, of one panel


def draw(records: Mapping[str, Record], file: Path) -> bool:
    """Draw what has curves, one panel a figure; False where there are none, or nothing to draw with."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    curves = [curve for record in records.values() for curve in record.curves if curve.points]
    panels = [figure for figure in _PANELS if any(curve.figure == figure for curve in curves)]
    if not panels:
        return False
    names = sorted({curve.subject for curve in curves}, key=lambda name: (name != "perdure", name))
    # Text stays text, and two drawings of the same figures are the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "perdure", "font.size": 9}):
        figure = Figure(figsize=(_SIZE[0] * len(panels), _SIZE[1]), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, _PANELS[panel], [curve for curve in curves if curve.figure == panel], names)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return True


def _panel(axes: Any, title: str, curves: Sequence[Curve], names: Sequence[str]) -> None:
    from matplotlib.ticker import LogLocator

    for curve in curves:
        points = sorted(curve.points.items())
        width = 2.2 if curve.subject == "perdure" else 1.2
        axes.plot(
            [steps for steps, _ in points], [value for _, value in points], marker="o", markersize=3, linewidth=width,
            color=f"C{names.index(curve.subject)}", label=curve.subject,
        )  # fmt: skip
    steps = sorted({steps for curve in curves for steps in curve.points})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(steps, labels=[f"{each:,}" for each in steps])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter("{x:,.0f}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.set_title(title, color=_INK)
    axes.set_xlabel("steps", color=_INK)
    axes.tick_params(which="both", colors=_INK)
    axes.grid(which="major", color=_INK, alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
