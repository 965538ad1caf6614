"""What a set of sentence patterns is made of.

Places to fill: {noun} and {place} of the slot, {word} its word, {a_word} the word with its article, {several} a count
with its noun ("two clouds"), {other} the thing whose colour is shared, {owner} whose it is. A capital at the start of a
place to fill makes its text begin with one.
"""

from dataclasses import dataclass, fields

from ..narrative import TRAINING_PROSE, Prose
from ..slots import Slot

__all__ = ["OWNERS", "Phrases", "with_article"]

OWNERS = ("Ada", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry")


@dataclass(frozen=True)
class Phrases:
    """Sentence patterns: openings, direct statements by the slot's trait, and the three ways to tell by reference.

    A *shared colour* names another thing ("the door has the colour of the roof"). An *owner* is introduced in one
    sentence and named in another ("the kite belongs to Ada", "what belongs to Ada is red"). A *pronoun* takes up the
    last thing mentioned ("look at the ball", "it is blue").
    """

    openings: tuple[str, ...]
    direct: dict[str, tuple[str, ...]]  # a slot's own name goes before its trait
    shared: tuple[str, ...]
    introductions: tuple[str, ...]
    owned: tuple[str, ...]
    mentions: tuple[str, ...]
    pronouns: tuple[str, ...]
    prose: Prose = TRAINING_PROSE  # what the story between the facts is made of

    def __add__(self, other: "Phrases") -> "Phrases":
        """What both are made of; the other tells no trait that this one does not."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        joined = {name: part + getattr(other, name) for name, part in parts.items() if name != "direct"}
        direct = {trait: patterns + other.direct.get(trait, ()) for trait, patterns in self.direct.items()}
        return Phrases(direct=direct, **joined)

    def of(self, slot: Slot) -> tuple[str, ...]:
        """Patterns that tell this slot by itself."""
        return self.direct.get(slot.name) or self.direct[slot.trait]


def with_article(word: str) -> str:
    """ "a red", "an orange"."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
