"""Pictures -> the pixels that a CLIP was trained on: transformers' Pillow processor, set as the checkpoint says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

try:
    from transformers import CLIPImageProcessorPil
except ImportError:  # older releases of transformers 5, where the processor of this name is the Pillow one
    from transformers import CLIPImageProcessor as CLIPImageProcessorPil  # type: ignore[assignment]

from ..errors import CheckpointError, ModelError
from .sources import find_source

__all__ = ["CLIPImageProcessorPil", "image_processor", "load_image_processor"]


def load_image_processor(source: str | Path, clip: CLIPModel, **hub: Any) -> CLIPImageProcessorPil:
    """The image processor that belongs to `clip`, which was loaded from the same source.

    Args:
        source: what `load_clip` takes. The `preprocessor_config.json` beside its weights decides; where there is none,
            `image_processor(clip)`.
        **hub: as `load_clip`.

    Raises:
        CheckpointError: no such source, or its preprocessor_config.json is not one.
        ModelError: it makes pictures of another size than the image tower reads.
    """
    recorded = find_source(source, **hub).preprocessor
    if not recorded:
        return image_processor(clip)
    size = _picture_size(clip)
    try:
        processor = CLIPImageProcessorPil.from_dict(recorded)
        pixels = processor(images=Image.new("RGB", (2 * size, size)), return_tensors="pt").pixel_values
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{source}: its preprocessor_config.json is not a CLIP's ({error}).") from error
    if pixels.shape[2:] != (size, size):
        raise ModelError(
            f"{source}: its preprocessor_config.json makes pictures of {pixels.shape[3]}x{pixels.shape[2]}, its image "
            f"tower reads {size}x{size}. Correct size and crop_size in that file, or remove it for CLIP's own."
        )
    return processor


def image_processor(
    clip: CLIPModel, *, mean: Sequence[float] = OPENAI_CLIP_MEAN, std: Sequence[float] = OPENAI_CLIP_STD
) -> CLIPImageProcessorPil:
    """OpenAI's processing at the size that the image tower reads: bicubic, centre crop, then (pixel - mean) / std.

    Args:
        mean, std: of red, green and blue, pixels being 0 to 1.
    """
    size = _picture_size(clip)
    crop = {"height": size, "width": size}
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size=crop, image_mean=list(mean), image_std=list(std)
    )


def _picture_size(clip: CLIPModel) -> int:
    return clip.config.vision_config.image_size  # type: ignore[union-attr,return-value]
