"""``python -m benchmarks.plots FILE.json... [--into FOLDER]``: the pictures of docs/benchmarks.md, as SVG.

Of several files (of one machine and commit, or the subtitle says otherwise) the last that has a row counts. A picture
whose rows no file has is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import typer
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.results import Measured, Saved, read
from benchmarks.rows import KIB, Kind, size_name
from benchmarks.sides import Name

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
OURS, PEER, CEILING, PALE = "#1f5fa8", "#d1702a", "#555555", "#9db9d8"
MIB = 1024 * 1024
STYLE: Any = {
    "svg.hashsalt": "icapscan",
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
Rows = dict[str, Measured]


def _canvas(panels: int, title: str) -> tuple[Canvas, list[Any]]:
    canvas = Canvas(figsize=(4.9 * panels + 0.4, 3.9), layout="constrained")
    canvas.suptitle(title, fontsize=11)
    return canvas, [canvas.add_subplot(1, panels, number + 1) for number in range(panels)]


def _sizes(axes: Any, sizes: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(sizes, [size_name(size) for size in sizes], rotation=30)
    axes.minorticks_off()
    axes.set_xlabel("body")


def _plain(axes: Any) -> None:
    """1, 2, 5, 10, 20, … on a logarithmic axis, as people write them."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.minorticks_off()


def _of(rows: Rows, start: str, end: str = "") -> list[Measured]:
    """The rows of 16 connections (or the one chosen for their size) whose names begin and end so, by size."""
    found = [one for name, one in rows.items() if name.startswith(start) and name.endswith(end) and ", x" not in name]
    return sorted(found, key=lambda one: one.row.body.size)


def throughput(rows: Rows) -> Canvas | None:
    """Answers a second by size: copying back, and scanning unique bodies."""
    echo, scan = _of(rows, "echo, ", "copy"), _of(rows, "scan, ")
    if not echo or not scan:
        return None
    canvas, axes = _canvas(2, "Throughput by size (closed loop, unique bodies)")
    for one, some, what in ((axes[0], echo, "/echo, copied back"), (axes[1], scan, "/avscan, clamd only")):
        sizes = [row.row.body.size for row in some]
        ceiling = [max(row.median(peer.value) for peer in (Name.FILDES, Name.INSTREAM)) for row in scan]
        if some is scan:
            one.plot(sizes, ceiling, color=CEILING, linestyle=":", marker=".", label="clamd alone (ceiling)")
        for name, colour, label in ((Name.OURS, OURS, "icapscan"), (Name.CICAP, PEER, "c-icap")):
            one.plot(sizes, [row.median(name.value) for row in some], color=colour, marker="o", ms=4, label=label)
        _sizes(one, sizes)
        if some is scan:
            one.set_yscale("log")
            _plain(one)
        else:
            one.set_ylim(bottom=0)
            one.yaxis.set_major_formatter("{x:,.0f}")
        one.set_title(what, fontsize=10)
        one.set_ylabel("answers a second")
        one.legend()
    return canvas


def latency(rows: Rows) -> Canvas | None:
    """p50 and p99 by offered rate."""
    found = [one for one in rows.values() if one.row.kind is Kind.SWEEP]
    if not found:
        return None
    canvas, (axes,) = _canvas(1, "Latency by load (open loop, /avscan, 32 KiB)")
    for name, colour in ((Name.OURS, OURS), (Name.CICAP, PEER)):
        points = found[0].figures(name.value)[0].points
        rates = [rate for rate, _, _ in points]
        axes.plot(rates, [p99 for _, _, p99 in points], color=colour, marker="o", ms=4, label=f"{name.value}, p99")
        axes.plot(rates, [p50 for _, p50, _ in points], color=colour, ls="--", marker=".", label=f"{name.value}, p50")
    axes.set_yscale("log")
    _plain(axes)
    axes.set_ylabel("milliseconds from when it was due")
    axes.set_xlabel("requests a second offered, around c-icap's best rate")
    axes.legend()
    return canvas


def memory(rows: Rows) -> Canvas | None:
    """Growth of memory by idle connections."""
    found = [one for one in rows.values() if one.row.kind is Kind.IDLE]
    if not found:
        return None
    canvas, (axes,) = _canvas(1, "Memory by idle connections (growth of the PSS of all processes)")
    for name, colour, label in ((Name.OURS_MANY, OURS, "icapscan"), (Name.CICAP_MANY, PEER, "c-icap")):
        points = found[0].figures(name.value)[0].points
        axes.plot(
            [count for count, _, _ in points], [grown / MIB for _, grown, _ in points], color=colour, marker="o",
            ms=4, label=label,
        )  # fmt: skip
    counts = [count for count, _, _ in points]
    target = 12 * KIB
    axes.plot(counts, [count * target / MIB for count in counts], color=CEILING, ls=":", label="12 KiB for each")
    axes.set_xlabel("connections, each after one scan")
    axes.set_ylabel("MiB")
    axes.legend()
    return canvas


def scaling(rows: Rows) -> Canvas | None:
    """One worker and two, on bodies that YARA is busy with."""
    found = [one for name, one in rows.items() if name.startswith("workers, ")]
    if not found:
        return None
    canvas, (axes,) = _canvas(1, "Scaling by workers (CPU-bound YARA rules, 16 KiB bodies)")
    rates = [found[0].median(name.value) for name in (Name.ONE_WORKER, Name.TWO_WORKERS)]
    axes.bar(["1 worker", "2 workers"], rates, color=[PALE, OURS], width=0.5)
    for at, rate in enumerate(rates):
        axes.text(at, rate, f"{rate:,.0f}\n{rate / rates[0]:.2f} ×", ha="center", va="bottom")
    axes.set_ylim(0, max(rates) * 1.2)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("answers a second")
    return canvas


PLOTS: dict[str, Callable[[Rows], Canvas | None]] = {
    "bench-throughput": throughput,
    "bench-latency": latency,
    "bench-memory": memory,
    "bench-workers": scaling,
}


def subtitle(saved: list[Saved]) -> str:
    """The machine and the commit, for the foot of each picture."""
    commits = ", ".join(dict.fromkeys(one.commit for one in saved))
    facts = saved[-1].machine
    return f"commit {commits} · {facts['cpu']}, {facts['cores']} cores · {saved[-1].time[:10]}"


def draw(saved: list[Saved], into: Path) -> list[Path]:
    """Write what can be drawn; returns the files."""
    rows = {measured.row.name: measured for one in saved for measured in one.rows}
    written = []
    into.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, plot in PLOTS.items():
            canvas = plot(rows)
            if canvas is None:
                continue
            canvas.supxlabel(subtitle(saved), fontsize=7, color=CEILING)
            canvas.savefig(into / f"{name}.svg", metadata={"Date": None})
            written.append(into / f"{name}.svg")
    return written


def main(
    files: Annotated[list[Path], typer.Argument(help="Results of benchmarks.run.")],
    into: Annotated[Path, typer.Option(help="The folder of the pictures.")] = FOLDER,
) -> None:
    """Draw, and name the files."""
    for path in draw([read(path) for path in files], into):
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
