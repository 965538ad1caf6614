"""Long-CLIP text encoders and chapter-length prompts for diffusers."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ._api import PUBLIC

try:
    __version__ = version("longclip-diffusers")
except PackageNotFoundError:  # a clone that was not installed, as ComfyUI uses it
    __version__ = "0+unknown"

__all__ = sorted(PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
