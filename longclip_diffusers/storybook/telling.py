"""One fact, one sentence or two: told directly, by a shared colour, by its owner, or by a pronoun."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .narrative import capitalised, narrate, ordinary_word
from .phrases import OWNERS, Phrases, with_article
from .scene import Scene
from .slots import OPENING_SLOTS, Slot

__all__ = ["Draft", "Teller"]

ADJECTIVE_SHARE = 0.15  # nouns with a word before them that tells nothing


@dataclass(eq=False)
class Draft:
    """A sentence that has no place in a caption yet; see `captions.Sentence` for what the fields mean."""

    text: str
    slots: tuple[str, ...] = ()
    antecedent: "Draft | None" = None
    subject: str = ""
    cue: str = ""
    owner: str = ""


class Teller:
    """Puts one scene's facts into words, in a given set of phrases."""

    def __init__(self, scene: Scene, rng: random.Random, phrases: Phrases):
        self.scene, self.rng, self.phrases = scene, rng, phrases
        self._owners = rng.sample(OWNERS, len(OWNERS))

    def opening(self) -> Draft:
        """Sky, hills, meadow and sea in one sentence."""
        words = {slot: with_article(self.scene[slot]) for slot in OPENING_SLOTS if slot != "hills"}
        words |= {"hills": self.scene["hills"], "sky_word": self.scene["sky"]}
        return Draft(self.rng.choice(self.phrases.openings).format(**words), OPENING_SLOTS)

    def direct(self, slot: Slot) -> Draft:
        """The slot by itself."""
        text, _ = self._fill(self.phrases.of(slot), slot)
        return Draft(text, (slot.name,))

    def shared(self, slot: Slot, antecedent: Draft, other: Slot) -> Draft:
        """The slot by the colour that it shares with `other`, which `antecedent` tells."""
        text, cue = self._fill(self.phrases.shared, slot, cue="other", other=self.rng.choice(other.nouns))
        return Draft(text, (slot.name,), antecedent, other.name, cue)

    def owned(self, slot: Slot) -> tuple[Draft, Draft] | None:
        """Whose the slot's thing is, and what is theirs; nothing once everybody owns something."""
        if not self._owners:
            return None
        owner = self._owners.pop()
        text, cue = self._fill(self.phrases.introductions, slot, cue="noun", owner=owner)
        introduction = Draft(text, subject=slot.name, cue=cue, owner=owner)
        text, cue = self._fill(self.phrases.owned, slot, cue="owner", owner=owner)
        return introduction, Draft(text, (slot.name,), introduction, slot.name, cue)

    def by_pronoun(self, slot: Slot, num_story: int) -> list[Draft]:
        """The thing mentioned, sentences of story, and what it is."""
        text, cue = self._fill(self.phrases.mentions, slot, cue="noun")
        mention = Draft(text, subject=slot.name, cue=cue)
        story = [self.story() for _ in range(num_story)]
        text, _ = self._fill(self.phrases.pronouns, slot)
        return [mention, *story, Draft(text, (slot.name,), mention, slot.name)]

    def story(self) -> Draft:
        """A sentence that tells nothing that the picture shows."""
        return Draft(narrate(self.rng, self.phrases.prose))

    def _fill(self, patterns: Sequence[str], slot: Slot, *, cue: str = "", **words: str) -> tuple[str, str]:
        # The sentence, and its beginning up to and including the word called `cue`.
        pattern = self.rng.choice(patterns)
        word, noun = self.scene[slot.name], self.rng.choice(slot.nouns)
        if slot.trait == "colour" and self.rng.random() < ADJECTIVE_SHARE:
            noun = f"{ordinary_word(self.rng)} {noun}"
        words |= {"noun": noun, "place": slot.place, "word": word, "a_word": with_article(word)}
        if slot.trait == "count":
            words |= {"several": f"{word} {noun}{'' if word == 'one' else 's'}", "be": "is" if word == "one" else "are"}
        capitals = {name.capitalize(): capitalised(filling) for name, filling in words.items()}
        before = pattern.partition("{" + cue + "}")[0] + "{" + cue + "}" if cue else ""
        filled, up_to_cue = (capitalised(part.format(**words, **capitals)) for part in (pattern, before))
        return filled, up_to_cue
