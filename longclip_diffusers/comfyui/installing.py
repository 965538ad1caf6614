"""A folder in custom_nodes/ that leads ComfyUI to the package which pip installed."""

import shutil
from pathlib import Path

from ..errors import LongClipError

__all__ = ["install_nodes"]

FOLDER = "longclip_diffusers"
WORKFLOWS = "example_workflows"  # the name ComfyUI looks for
_MARK = "Written by `longclip comfy-install`"
_ENTRY = f'''"""{_MARK}: leads ComfyUI to the longclip_diffusers that its Python has installed."""

from longclip_diffusers.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
'''


def install_nodes(comfyui: Path) -> Path:
    """The folder that was written: an `__init__.py` of five lines and the example workflows. Writes it anew each time.

    Raises:
        LongClipError: no ComfyUI there, or a folder of that name which is somebody else's, a clone for example.
    """
    nodes = comfyui / "custom_nodes"
    if not nodes.is_dir():
        raise LongClipError(
            f"{comfyui} has no folder custom_nodes/. Give ComfyUI's own folder, in which main.py lies (in the portable "
            "version the inner one, called ComfyUI)."
        )
    folder = nodes / FOLDER
    entry = folder / "__init__.py"
    if folder.exists() and not (entry.is_file() and _MARK in entry.read_text(encoding="utf-8")):
        raise LongClipError(
            f"{folder} exists and was not written by longclip comfy-install: a clone of the repository has the nodes "
            "already. Update it there, or move it away."
        )
    folder.mkdir(exist_ok=True)
    entry.write_text(_ENTRY, encoding="utf-8")
    shutil.copytree(_workflows(), folder / WORKFLOWS, dirs_exist_ok=True)
    return folder


def _workflows() -> Path:
    package = Path(__file__).parent.parent
    installed = package / WORKFLOWS
    return installed if installed.is_dir() else package.parent / WORKFLOWS  # the latter in a clone
