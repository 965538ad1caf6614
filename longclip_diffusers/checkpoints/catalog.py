"""Long-CLIP encoders known by name, and which of them fits which text tower."""

from dataclasses import dataclass

__all__ = ["CATALOG", "KnownCheckpoint", "long_clip_for_width"]


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published encoder. `sha256` is None until it was read from the real file; where known it is checked."""

    repo: str
    weights: str
    width: int
    sha256: str | None = None


CATALOG: tuple[KnownCheckpoint, ...] = (
    KnownCheckpoint("BeichenZhang/LongCLIP-L", "longclip-L.pt", 768),
    KnownCheckpoint("BeichenZhang/LongCLIP-B", "longclip-B.pt", 512),
    KnownCheckpoint("BeichenZhang/LongCLIP-L-336px", "longclip-L@336px.pt", 768),
    KnownCheckpoint("BeichenZhang/LongCLIP-B-32", "longclip-B-32.pt", 512),
    KnownCheckpoint("zer0int/LongCLIP-L-Diffusers", "model.safetensors", 768),
    KnownCheckpoint("zer0int/LongCLIP-GmP-ViT-L-14", "model.safetensors", 768),
    KnownCheckpoint("zer0int/LongCLIP-SAE-ViT-L-14", "model.safetensors", 768),
)


def long_clip_for_width(width: int) -> str | None:
    """Hub id of the first Long-CLIP in the catalog whose text tower has this width; None where nobody trained one."""
    return next((known.repo for known in CATALOG if known.width == width), None)
