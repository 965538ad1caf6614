"""Results as JSON, as a Markdown table and as a plot."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoints.files import sha256_of
from ..checkpoints.sources import find_source
from ..positions import CLIP_LENGTH, LONG_LENGTH

if TYPE_CHECKING:  # detail imports Row from here
    from .detail import Fact

__all__ = ["Row", "bare_table", "hash_model", "hash_source", "plot_recall", "table", "tall_table", "write_json"]

FEWEST = 20  # facts that a plotted point needs


@dataclass(frozen=True)
class Row:
    """One cell of a table: `value`, a mean over `n` of what is counted, with its 95 % interval.

    `column` names what was measured, the protocol included: data set, captions, direction, size of the gallery.
    """

    encoder: str
    column: str
    value: float
    low: float
    high: float
    n: int


def hash_model(model: Path) -> dict[str, str]:
    """sha256 of every weight file in a model folder, by its path inside it."""
    return {path.relative_to(model).as_posix(): sha256_of(path) for path in sorted(model.rglob("*.safetensors"))}


def hash_source(source: str | Path, name: str) -> dict[str, str]:
    """sha256 of the weight files that `source` (file, folder or hub id) means, as `NAME/FILE`.

    Raises:
        CheckpointError: as `load_clip`.
    """
    return {f"{name}/{path.name}": sha256_of(path) for path in find_source(source).files}


def write_json(path: Path, rows: Sequence[Row], hashes: Mapping[str, str], **settings: object) -> None:
    """The machine-readable result: `rows`, `sha256` of the model's files, and the settings of the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"rows": [asdict(row) for row in rows], "sha256": dict(hashes), **settings}
    path.write_text(json.dumps(content, indent=2) + "\n")


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: an encoder a line, a column for each `column` in order, `value [low, high]`."""
    encoders, columns, cells = _cells(rows)
    counts = {column: sorted({row.n for row in rows if row.column == column}) for column in columns}
    head = [f"{column} (n={' or '.join(map(str, counts[column]))})" for column in columns]
    return _markdown(
        ["encoder", *head], [[each, *(cells.get((each, column), "-") for column in columns)] for each in encoders]
    )


def bare_table(rows: Sequence[Row], *, names: Mapping[str, str], others: Collection[str] = ()) -> str:
    """The same with values alone, so that many columns fit a page: shares as ".985", what `others` name as "1.5".

    Args:
        names: what columns are called, where not as they are.
    """

    def value(row: Row) -> str:
        return f"{row.value:.1f}" if row.column in others else f"{row.value:.3f}".removeprefix("0")

    encoders, columns, cells = _cells(rows, value)
    lines = [[each, *(cells.get((each, column), "") for column in columns)] for each in encoders]
    return _markdown(["encoder", *(names.get(column, column) for column in columns)], lines)


def tall_table(rows: Sequence[Row]) -> str:
    """The same, turned: for many columns with long names. A line for each `column`, an encoder a column."""
    encoders, columns, cells = _cells(rows)
    lines = [[column, *(cells.get((each, column), "-") for each in encoders)] for column in columns]
    return _markdown(["measure", *encoders], lines)


def _with_interval(row: Row) -> str:
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def _cells(
    rows: Sequence[Row], text: Callable[[Row], str] = _with_interval
) -> tuple[list[str], list[str], dict[tuple[str, str], str]]:
    cells = {(row.encoder, row.column): text(row) for row in rows}
    return list(dict.fromkeys(row.encoder for row in rows)), list(dict.fromkeys(row.column for row in rows)), cells


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    written = [f"| {' | '.join(line)} |" for line in (head, *lines)]
    return "\n".join([written[0], "|---" * len(head) + "|", *written[1:]])


@dataclass(frozen=True)
class _Panel:
    """Facts of one kind of text, told directly or by reference: where each is plotted, and what the axes say."""

    kind: str
    by_reference: bool
    place: Callable[["Fact"], float]
    xlabel: str
    ylabel: str

    def counts(self, fact: "Fact") -> bool:
        return fact.kind == self.kind and (fact.distance is not None) is self.by_reference


def _middle(tokens: int | None, width: int) -> float:
    """Of the bin of `width` tokens that holds `tokens`."""
    return ((tokens or 0) // width + 0.5) * width


_TOLD, _REFERRED = "details told directly: recall", "told by reference: recall"
_PANELS = (
    _Panel("long", False, lambda fact: _middle(fact.position, 20), "long captions: position in tokens", _TOLD),
    _Panel("chapter", False, lambda fact: fact.quarter, "chapters: quarter of the text's tokens", _TOLD),
    _Panel(
        "long",
        True,
        lambda fact: _middle(fact.distance, 40),
        "long captions: tokens back to what is referred to",
        _REFERRED,
    ),
    _Panel(
        "chapter",
        True,
        lambda fact: _middle(fact.distance, 200),
        "chapters: tokens back to what is referred to",
        _REFERRED,
    ),
)


def plot_recall(path: Path, facts: Mapping[str, "Sequence[Fact]"]) -> None:
    """Recall, a line for each encoder, as a PNG of the panels there are facts for; chance is the first encoder's.

    Details told directly, in long captions by the position of the sentence that tells them, in chapters by quarter; and
    what is told by reference, by the distance to what it refers to.
    """
    from matplotlib.figure import Figure

    panels = [panel for panel in _PANELS if any(panel.counts(fact) for every in facts.values() for fact in every)]
    rows, columns = (2, 2) if len(panels) > 2 else (1, max(1, len(panels)))
    figure = Figure(figsize=(5.5 * columns, 0.8 + 4.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for spare in grid.flat[len(panels) :]:
        spare.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for number, (encoder, every) in enumerate(facts.items()):
            here = [fact for fact in every if panel.counts(fact)]
            # Every second line is dashed, the last one too: where it lies on another, both are seen.
            style = {"marker": "osv^D"[number % 5], "markersize": 4, "color": f"C{number}", "label": encoder}
            style["linestyle"] = ("-", "--")[(len(facts) - number) % 2]
            axes.plot(*_curve([panel.place(fact) for fact in here], [fact.shown for fact in here]), **style)
        first = [fact.by_chance for fact in next(iter(facts.values())) if panel.counts(fact)]
        axes.axhline(np.mean(first), color="grey", linestyle="--", linewidth=1, label="chance")
        axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, ylim=(0, 1.03))
        if panel.kind == "long":
            axes.axvline(
                CLIP_LENGTH, color="grey", linestyle=":", label="77 tokens: stock Stable Diffusion stops reading"
            )
        elif panel.by_reference:
            axes.axvline(LONG_LENGTH, color="grey", linestyle="-.", label="248 tokens: no window holds both")
        else:
            axes.set_xticks(range(1, 5))
    named = {name: line for axes in grid.flat for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(len(named), 4), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _curve(places: Sequence[float], shown: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Places, ascending, and the mean there; a place of few facts says nothing and is left out."""
    at, hits = np.array(places), np.array(shown, dtype=float)
    kept = [place for place in np.unique(at) if (at == place).sum() >= FEWEST]
    return [float(place) for place in kept], [float(hits[at == place].mean()) for place in kept]
