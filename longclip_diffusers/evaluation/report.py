"""Results as JSON, as a Markdown table and as a plot."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..positions import CLIP_LENGTH
from .detail import COLUMNS, Fact, Row

__all__ = ["hash_model", "plot_recall", "table", "write_json"]

BIN = 20  # tokens a plotted point


def hash_model(model: Path) -> dict[str, str]:
    """sha256 of every weight file in a model folder, by its path inside it."""
    return {
        str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(model.rglob("*.safetensors"))
    }


def write_json(path: Path, rows: Sequence[Row], hashes: Mapping[str, str], **settings: object) -> None:
    """The machine-readable result: `rows`, `sha256` of the model's files, and the settings of the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"rows": [asdict(row) for row in rows], "sha256": dict(hashes), **settings}
    path.write_text(json.dumps(content, indent=2) + "\n")


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: an encoder a line, a column a position range, `recall [low, high]`."""
    encoders = list(dict.fromkeys(row.encoder for row in rows))
    cells = {(row.encoder, row.column): f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in rows}
    counts = {row.column: row.n for row in rows}
    columns = [column for column in COLUMNS if column in counts]
    lines = [
        "| encoder | " + " | ".join(f"{column} (n={counts[column]})" for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [
        f"| {encoder} | " + " | ".join(cells.get((encoder, column), "-") for column in columns) + " |"
        for encoder in encoders
    ]
    return "\n".join(lines)


def plot_recall(path: Path, facts: Mapping[str, Sequence[Fact]], *, chance: float) -> None:
    """Recall against the position of the describing sentence, a line for each encoder, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for encoder, told in facts.items():
        bins = np.array([fact.position // BIN for fact in told])
        shown = np.array([fact.shown for fact in told], dtype=float)
        centres = [bin_ for bin_ in np.unique(bins) if (bins == bin_).sum() >= BIN]
        means = [shown[bins == bin_].mean() for bin_ in centres]
        axes.plot([(bin_ + 0.5) * BIN for bin_ in centres], means, marker="o", label=encoder)
    axes.axvline(CLIP_LENGTH, color="grey", linestyle=":", label="77 tokens: stock Stable Diffusion stops reading")
    axes.axhline(chance, color="grey", linestyle="--", linewidth=1, label="chance")
    axes.set(xlabel="token position of the sentence that tells the detail", ylabel="detail recall", ylim=(0, 1.03))
    axes.legend(loc="center right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
