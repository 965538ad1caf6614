"""`longclip comfy-install`: the ComfyUI nodes of an installed package."""

from pathlib import Path

import tyro

__all__ = ["comfy_install"]


def comfy_install(comfyui: tyro.conf.Positional[Path], /) -> None:
    """Put the nodes into a ComfyUI whose Python has this package; not needed where the repository was cloned there.

    Args:
        comfyui: ComfyUI's folder, the one that holds custom_nodes/ (and main.py).
    """
    from ..comfyui.installing import install_nodes

    print(f"The nodes are in {install_nodes(comfyui)}. Restart ComfyUI; they are under Long-CLIP.")
