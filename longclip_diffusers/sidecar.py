"""What a model folder remembers of our options: `longclip_config.json`, which every other loader ignores."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from .errors import CheckpointError, LongClipError, PromptError
from .syntax import SYNTAXES, parse_prompt
from .windows import Context

__all__ = [
    "AUTO",
    "SIDECAR",
    "Generation",
    "PromptOptions",
    "format_sidecar",
    "named_encoder",
    "parse_sidecar",
    "read_generation",
    "read_sidecar",
]

SIDECAR = "longclip_config.json"
AUTO = "auto"  # for the encoder: look for one; for the window: the encoder's length; for the context: by the prompts
GENERATION = "generation"  # the sidecar's key for `Generation`
_CHOICES = {"context": (AUTO, *get_args(Context)), "syntax": SYNTAXES, "g_mode": ("chunk", "stretch", "first77")}


@dataclass(frozen=True)
class PromptOptions:
    """How a pipeline reads its prompts.

    window: tokens per window, BOS and EOS included; "auto" is the encoder's own length (77 rows where all is short).
    context: "related" reads a window behind the earlier sentences it needs; "none" reads it alone; "auto" is "related",
        but "none" for a call in which BREAK or .and() says where a window begins.
    syntax: "plain", prose taken literally; "a1111", "a1111-mean" or "compel": see `parse_prompt`.
    g_mode: how SDXL's second encoder reads a text longer than itself, see `LongPromptXLMixin`; unused else.
    """

    window: int | str = AUTO
    context: str = AUTO
    syntax: str = "plain"
    g_mode: str = "chunk"

    def __post_init__(self) -> None:
        if self.window != AUTO and (type(self.window) is not int or self.window < 3):
            raise PromptError(f'window={self.window!r}: expected "auto" or a number of tokens, 3 or more.')
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise PromptError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(repr, choices))}.")

    def context_of(self, texts: Iterable[str]) -> str:
        """The context that the prompts of one call are planned with: "related" or "none"."""
        if self.context != AUTO:
            return self.context
        parsed = (parse_prompt(text, self.syntax) for text in texts if self.syntax != "plain")
        breaks = any(len(reading.passages) > 1 for prompt in parsed for reading in prompt.readings)
        return "none" if breaks else "related"


@dataclass(frozen=True)
class Generation:
    """How a model is denoised: the sidecar's "generation" says what suits it, the defaults suit Stable Diffusion 1.5.

    steps: of denoising, 1 or more. guidance: classifier-free guidance scale, 0 or more.
    """

    steps: int = 30
    guidance: float = 7.5

    def __post_init__(self) -> None:
        if type(self.steps) is not int or self.steps < 1:
            raise PromptError(f"steps={self.steps!r}: expected a whole number, 1 or more.")
        if type(self.guidance) not in (int, float) or not 0 <= self.guidance < math.inf:
            raise PromptError(f"guidance={self.guidance!r}: expected a number, 0 or more (1 and less turn it off).")


def format_sidecar(options: PromptOptions, *, longclip: str | None = None, generation: Generation | None = None) -> str:
    """The sidecar's JSON. `longclip` names the long encoder; None says that `text_encoder/` is the one to read with."""
    suits = {} if generation is None else {GENERATION: asdict(generation)}
    chosen = asdict(options)
    if options.g_mode == PromptOptions.g_mode:
        del chosen["g_mode"]  # most models have no second encoder
    return json.dumps({"longclip": longclip, **chosen, **suits}, indent=2) + "\n"


def parse_sidecar(text: str, *, name: str = SIDECAR) -> tuple[str | None, PromptOptions]:
    """What `format_sidecar` wrote: `longclip` ("auto" where absent) and the options; `name` is for messages.

    Raises:
        CheckpointError: not a JSON object, an unknown key, or a value that the option does not take.
    """
    known = ["longclip", *(field.name for field in fields(PromptOptions)), GENERATION]
    content = _json_object(text, name)
    if unknown := sorted(set(content) - set(known)):
        raise CheckpointError(f"{name}: unknown {', '.join(map(repr, unknown))}. Known keys: {', '.join(known)}.")
    _generation(content.pop(GENERATION, {}), name)
    longclip = content.pop("longclip", AUTO)
    if longclip is not None and not (isinstance(longclip, str) and longclip):
        raise CheckpointError(f"{name}: 'longclip' is {longclip!r}; expected a subfolder, a path, a hub id or null.")
    try:
        return longclip, PromptOptions(**content)
    except LongClipError as error:
        raise CheckpointError(f"{name}: {error}") from error


def read_sidecar(model: str | Path, **hub: Any) -> tuple[str | None, PromptOptions]:
    """The same of a model folder or hub id; ("auto", the defaults) where it has no sidecar.

    Offline, a sidecar that is not in the hub's cache counts as none: most models have none.
    """
    file = _find(model, **hub)
    if file is None:
        return AUTO, PromptOptions()
    return parse_sidecar(file.read_text(encoding="utf-8"), name=f"{model}/{SIDECAR}")


def read_generation(model: str | Path, **hub: Any) -> Generation:
    """What a model folder's or hub id's sidecar recommends; the defaults where it recommends nothing.

    Raises:
        CheckpointError: the sidecar is not a JSON object, or its "generation" is not what `Generation` takes.
    """
    file = _find(model, **hub)
    if file is None:
        return Generation()
    name = f"{model}/{SIDECAR}"
    return _generation(_json_object(file.read_text(encoding="utf-8"), name).get(GENERATION, {}), name)


def named_encoder(model: str | Path, longclip: str, **hub: Any) -> tuple[str | Path, dict[str, Any]]:
    """What a sidecar's `longclip` means beside `model`: the source of an encoder, and the hub arguments to load it.

    A name inside the model folder is that; on the hub a name without a slash is a subfolder of the same repository and
    revision; anything else is a path or a hub id of its own.
    """
    inside = Path(model) / longclip
    if not Path(model).is_dir() and "/" not in longclip:
        return model, {**hub, "subfolder": f"{longclip}/text_encoder"}
    hub.pop("revision", None)
    return (inside if inside.exists() else longclip), hub


def _find(model: str | Path, **hub: Any) -> Path | None:
    """The sidecar's file, downloaded from a hub id; None where there is none."""
    place = Path(model)
    if place.exists():
        file = place / SIDECAR  # of a single checkpoint file there is none
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(str(model), SIDECAR, **hub))
    except EntryNotFoundError:  # its subclass LocalEntryNotFoundError is the offline case
        return None


def _generation(generation: Any, name: str) -> Generation:
    try:
        return Generation(**generation)
    except (TypeError, LongClipError) as error:
        raise CheckpointError(
            f"{name}: {GENERATION!r} is {generation!r}, expected steps and guidance: {error}"
        ) from error


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{name} is not readable JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} is not a JSON object.")
    return content
