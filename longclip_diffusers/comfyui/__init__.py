"""The ComfyUI nodes. Neither ComfyUI nor torch is imported before a node is used, diffusers and accelerate never."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
