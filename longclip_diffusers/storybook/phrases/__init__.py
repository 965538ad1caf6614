"""How the storybook's facts are put into words: phrases for training, and two sets that no training uses."""

from .development import DEVELOPMENT
from .patterns import OWNERS, Phrases, with_article
from .training import TRAINING
from .unseen import UNSEEN

__all__ = [
    "DEVELOPMENT",
    "OWNERS",
    "TRAINING",
    "UNSEEN",
    "Phrases",
    "with_article",
]
