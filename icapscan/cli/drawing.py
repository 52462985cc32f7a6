"""The tree of parts of one body, drawn for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from icapscan.cli.explain import Explained, Shown
from icapscan.cli.report import printable
from icapscan.findings import Anomaly

LINE_MAX = 4096
"""Characters of a line where the output goes to a file or to a program."""


def draw(explained: Explained) -> None:
    """Print the tree: one line a part, what is odd about it below."""
    root = Tree(Text(printable(explained.path), style="bold"))
    branches: dict[str, Tree] = {}
    odd: dict[str, list[Anomaly]] = {}
    for one in explained.anomalies:
        odd.setdefault(one.part, []).append(one)
    for part in explained.parts:
        above = _above(part.path, branches)
        label = _label(part, above)
        if not part.path:
            root.label = Text.assemble((printable(explained.path), "bold"), "  ", label)
            branches[""] = root
        else:
            branches[part.path] = (branches[above] if above is not None else root).add(label)
        _add(branches[part.path], odd.pop(part.path, ()))
    for path, found in odd.items():  # of parts that never began
        above = _above(path, branches)
        where = branches[above] if above is not None else root
        _add(where.add(Text(printable(path))) if path else where, found)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = LINE_MAX
    console.print(root)


def _above(path: str, branches: dict[str, Tree]) -> str | None:
    """The nearest part that a path stands under, by path."""
    while path:
        path = path.rpartition("/")[0]
        if path in branches:
            return path
    return None


def _label(part: Shown, above: str | None) -> Text:
    start = len(above) + 1 if above else 0
    words = [(printable(part.path[start:]), "bold")] if part.path else []
    words += [(printable(name), "cyan") for name in part.names if name != part.path[start:]]
    if part.media_type:
        words.append((printable(part.media_type), "dim"))
    words.append((f"{part.size:,} byte{'' if part.size == 1 else 's'}", ""))
    if part.opened:
        words.append((f"opened as {', '.join(part.opened)}", "green"))
    if part.reading:
        words.append((f"reading {part.reading}", "magenta"))
    return Text("  ").join(Text(text, style=style) for text, style in words)


def _add(tree: Tree, found: Iterable[Anomaly]) -> None:
    for one in found:
        tree.add(Text(printable(f"{one.kind}: {one.detail}" if one.detail else one.kind), style="yellow"))
