"""`longclip inspect`: what a checkpoint is."""

import tyro

__all__ = ["inspect"]


def inspect(
    source: tyro.conf.Positional[str],
    /,
    *,
    subfolder: str | None = None,
    weight_name: str | None = None,
    revision: str | None = None,
) -> None:
    """Print a checkpoint's layout, tower sizes, position rows (trained or interpolated), dtypes and SHA-256.

    Args:
        source: File, folder or hub id (owner/name) of a CLIP or Long-CLIP.
        subfolder: Folder inside the source to look in.
        weight_name: File to read where the source holds several.
        revision: Branch, tag or commit of a hub id.
    """
    from ..checkpoints import inspect_checkpoint

    print(inspect_checkpoint(source, subfolder=subfolder, weight_name=weight_name, revision=revision))
