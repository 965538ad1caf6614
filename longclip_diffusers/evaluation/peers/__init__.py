"""Other ways to get a long prompt into an unchanged Stable Diffusion 1.x or XL, and ours, on the same texts."""

from .cost import ENCODERS, UNET_STEP, cost_rows, time_ways
from .pipes import Pipes, open_pipes, random_pipes
from .reading import Reading, read_texts, reading_rows, reading_table
from .recall import draw_encoded
from .texts import CHAPTER, Text, chapter, peer_texts
from .ways import Family, Way, describe_error, find_ways

__all__ = [
    "CHAPTER",
    "ENCODERS",
    "UNET_STEP",
    "Family",
    "Pipes",
    "Reading",
    "Text",
    "Way",
    "chapter",
    "cost_rows",
    "describe_error",
    "draw_encoded",
    "find_ways",
    "open_pipes",
    "peer_texts",
    "random_pipes",
    "read_texts",
    "reading_rows",
    "reading_table",
    "time_ways",
]
