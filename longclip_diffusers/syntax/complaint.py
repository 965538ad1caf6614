"""What is said of a prompt that cannot be read: the problem, the line around the place, a caret under it."""

import unicodedata

from ..errors import PromptSyntaxError

__all__ = ["syntax_error"]

AROUND = 36  # characters shown on each side of the place: with the indent they fit a line of a terminal
INDENT = "    "


def syntax_error(problem: str, text: str, position: int) -> PromptSyntaxError:
    """The error to raise; `position` is the character of `text`, as the user wrote it, that is at fault."""
    position = max(0, min(position, len(text)))
    line_start = text.rfind("\n", 0, position) + 1
    line_end = text.find("\n", position)
    start = max(line_start, position - AROUND)
    end = min(len(text) if line_end < 0 else line_end, position + AROUND)
    before = ("..." if start > line_start else "") + _printable(text[start:position])
    behind = _printable(text[position:end]) + ("..." if end < (len(text) if line_end < 0 else line_end) else "")
    caret = " " * sum(map(_columns, before)) + "^"
    return PromptSyntaxError(f"{problem}\n{INDENT}{before}{behind}\n{INDENT}{caret}")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
