"""What a run leaves to be read: `log.jsonl`, TensorBoard's files where that is installed, and curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LongClipError

__all__ = ["RunLog", "plot_curves", "read_log"]

NAME = "log.jsonl"


class RunLog:
    """One JSON object a line: a step, or an evaluation (with `event`). A resumed run drops what it will do again."""

    def __init__(self, folder: Path, *, after_step: int):
        self.path = folder / NAME
        kept = [line for line in _lines(self.path) if line["step"] <= after_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.path)
        self._board = _tensorboard(folder, after_step)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line, at once on disk; its numbers go to TensorBoard too."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            group = line.get("event", "train")
            for name, value in line.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(f"{group}/{name}", value, line["step"])
            self._board.flush()


def _tensorboard(folder: Path, after_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra longclip-diffusers[train]
        return None
    return SummaryWriter(folder / "tensorboard", purge_step=after_step + 1)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue  # the last line of a run that was killed while it wrote
    return lines


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's log, in order.

    Raises:
        LongClipError: there is none.
    """
    lines = _lines(Path(folder) / NAME)
    if not lines:
        raise LongClipError(f"{folder} holds no {NAME} with a step in it; give the folder of a run (train --output).")
    return lines


def plot_curves(folder: str | Path, *, smoothing: int = 25) -> Path:
    """Draw losses, learning rate and evaluations over the steps into `curves.png` in the run's folder; return its path.

    Args:
        smoothing: steps that a running mean of the losses covers.

    Raises:
        LongClipError: there is no log.
    """
    from matplotlib.figure import Figure

    lines = read_log(folder)
    steps = [line for line in lines if "event" not in line]
    events = [line for line in lines if "event" in line]
    figure = Figure(figsize=(8, 9), layout="constrained")
    losses, rates, scores = figure.subplots(3, 1, sharex=True)
    for name in ("loss", "loss_long", "loss_short", "loss_anchor"):
        told = [(line["step"], line[name]) for line in steps if line.get(name) is not None]
        if told:
            where, values = zip(*told, strict=True)
            losses.plot(where, _running_mean(values, smoothing), label=name)
    losses.set(ylabel="loss", yscale="log")
    rates.plot([line["step"] for line in steps], [line["lr"] for line in steps])
    rates.set(ylabel="learning rate")
    for name in dict.fromkeys(name for line in events for name in line if name not in ("event", "step", "best")):
        told = [(line["step"], line[name]) for line in events if line.get(name) is not None]
        if told:
            scores.plot(*zip(*told, strict=True), marker="o", label=name)
    scores.set(ylabel="held-out samples", xlabel="step")
    for axes in (losses, scores):
        if axes.lines:
            axes.legend(fontsize=7, ncols=2)
    out = Path(folder) / "curves.png"
    figure.savefig(out, dpi=120)
    return out


def _running_mean(values: Any, width: int) -> list[float]:
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - width) : i + 1] for i in range(len(values)))]
