"""What the verbs of `longclip evaluate` share: which encoders they measure, and what they write and tell at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LongClipError
from ..evaluation.features import Encoder, open_encoder
from ..evaluation.report import Row, hash_source, tall_table, write_json
from ..models import bundled

__all__ = ["Sources", "data_name", "report"]

BUNDLED = "storybook/clip"  # the bundled model's name in the rows
NUM_BAD_SHOWN = 5


@dataclass(frozen=True)
class Sources:
    """What `--model` (None: the bundled CLIP) and `--base` (None: none) name."""

    model: str | None
    base: str | None

    def _named(self) -> dict[str, str | Path]:
        named: dict[str, str | Path] = {self.model: self.model} if self.model else {BUNDLED: bundled() / "clip"}
        if self.base in named:
            raise LongClipError(f"--base {self.base} is the model itself. Give what it was trained from, or no base.")
        return named | ({self.base: self.base} if self.base else {})

    def open(self, device: str) -> list[Encoder]:
        """The model, then the base.

        Raises:
            LongClipError: both are the same, or as `load_clip`.
        """
        return [open_encoder(source, name=name, device=device) for name, source in self._named().items()]

    def hashes(self) -> dict[str, str]:
        """sha256 of every weight file of both."""
        return {file: sha for name, source in self._named().items() for file, sha in hash_source(source, name).items()}


def data_name(spec: str) -> str:
    """What the rows call the data of a SPEC: its file or folder, without the way there and the kind."""
    kind, colon, rest = spec.partition(":")
    if not colon or len(kind) < 2:  # C:\\pictures is a path
        return Path(spec).stem
    return Path(rest.partition(":")[0] if kind in ("sharegpt4v", "hf") else rest).stem


def report(
    json: Path,
    rows: Sequence[Row],
    sources: Sources,
    bad: Sequence[LongClipError],
    truncated: Mapping[str, Mapping[str, float]],
    **settings: object,
) -> None:
    """Write the JSON; print the table, what was cut and what could not be read."""
    write_json(json, rows, sources.hashes(), **settings, truncated=truncated, num_bad=len(bad))
    print(tall_table(rows))
    for encoder, shares in truncated.items():
        for kind, share in shares.items():
            if share:
                print(
                    f"{encoder} read only the beginning of {share:.1%} of the {kind} texts: they are too long for it."
                )
    for error in bad[:NUM_BAD_SHOWN]:
        print(f"left out: {error}")
    if len(bad) > NUM_BAD_SHOWN:
        print(f"left out: {len(bad) - NUM_BAD_SHOWN} more, {len(bad)} in all")
    print(f"Rows in {json}.")
