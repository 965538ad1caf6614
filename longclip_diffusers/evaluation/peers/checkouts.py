"""Code of other projects, imported from a folder or file that the user named: nothing of it is part of this package."""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import LongClipError

__all__ = ["find_in_checkout", "import_file", "import_package"]


def find_in_checkout(given: Path, name: str, folders: Sequence[str], *, option: str, source: str) -> Path:
    """The file `name` of a checkout: `given` itself, or in one of `folders` below it.

    Args:
        folders: where the project keeps it; "" is `given`.
        option: of the command line, for the message.
        source: where the project lives, for the message.

    Raises:
        LongClipError: it is not there.
    """
    if given.name == name and given.is_file():
        return given
    for folder in folders:
        if (found := given / folder / name).is_file():
            return found
    what = "holds no" if given.is_dir() else "is no folder with"
    places = ", ".join(f"{folder or '.'}/" for folder in folders)
    raise LongClipError(f"{option} {given} {what} {name} (looked in {places}). Give a checkout of {source}.")


def import_file(path: Path, function: str) -> Callable[..., Any]:
    """A function of a module that lies alone."""
    return getattr(_executed(path.stem, path), function)


def import_package(folder: Path, module: str, function: str) -> Callable[..., Any]:
    """A function of a package's module, whose own modules may import each other by the package's name.

    What is installed or was imported under that name is as before afterwards.
    """
    with _hidden(folder.name):
        _executed(folder.name, folder / "__init__.py", [str(folder)])
        return getattr(importlib.import_module(f"{folder.name}.{module}"), function)


def _executed(name: str, path: Path, inside: list[str] | None = None) -> ModuleType:
    spec = spec_from_file_location(name, path, submodule_search_locations=inside)
    assert spec is not None and spec.loader is not None  # of a path that ends in .py
    module = module_from_spec(spec)
    if inside is not None:
        sys.modules[name] = module  # its own modules look for it there
    logging.getLogger(name).setLevel(logging.ERROR)  # it would warn of what is measured here
    spec.loader.exec_module(module)
    return module


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    def own() -> list[str]:
        return [name for name in sys.modules if name == package or name.startswith(f"{package}.")]

    before = {name: sys.modules.pop(name) for name in own()}
    try:
        yield
    finally:
        for name in own():
            del sys.modules[name]
        sys.modules.update(before)
