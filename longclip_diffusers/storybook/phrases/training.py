"""The phrases of training: those of one hand, few, then more, then varied, and those of writers who knew none of the
others, first three, then two more for references alone."""

from .references import REFERENCES
from .varied import VARIED
from .voices import VOICES

__all__ = ["TRAINING"]

TRAINING = VARIED + VOICES + REFERENCES
