"""One small exception tree: everything the package refuses derives from `LongClipError`."""

__all__ = ["CheckpointError", "LongClipError", "ModelError", "PromptError", "PromptSyntaxError"]


class LongClipError(ValueError):
    """The base of every user-facing error: what thing, what was expected, what came, what to do next."""


class CheckpointError(LongClipError):
    """A checkpoint file or folder that cannot be read, or that is not what it was given as."""


class ModelError(LongClipError):
    """A tokenizer, encoder or pipeline that does not fit the work (wrong length, wrong width, NaN output)."""


class PromptError(LongClipError):
    """A text or an option of a prompt that cannot be used."""


class PromptSyntaxError(PromptError):
    """A prompt that is not written in its syntax. The message has three lines: what, the text around it, a caret."""
