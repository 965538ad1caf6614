"""The models that ship inside the package; each has a model card (README.md) beside its files."""

from pathlib import Path

from ..errors import ModelError

__all__ = ["bundled"]


def bundled(name: str = "storybook") -> Path:
    """Folder of a bundled model, a diffusers folder that any `from_pretrained` opens.

    Raises:
        ModelError: no model of that name ships with this version.
    """
    root = Path(__file__).parent
    folder = root / name
    if not (folder / "model_index.json").is_file():
        names = sorted(path.parent.name for path in root.glob("*/model_index.json")) or ["none"]
        raise ModelError(f"No bundled model is called {name!r}. Bundled: {', '.join(names)}.")
    return folder
