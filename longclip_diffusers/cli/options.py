"""What `longgen` can be told, checked before anything heavy is imported."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..prompt_files import MAX_SEED
from .exits import UsageError

__all__ = ["DESCRIPTION", "Options"]

# What decides how a prompt becomes embeddings, or needs it.
READING = ("negative", "longclip", "syntax", "window", "context", "tokens", "compare")

DESCRIPTION = """Draw a picture from a prompt of any length.

  longgen "A picture of a bay under a pink sky ..."
  longgen --file chapter.txt --compare
  longgen --file chapter.txt --model stable-diffusion-v1-5/stable-diffusion-v1-5
  longgen --batch prompts.jsonl --out pictures
  longgen --file chapter.txt --embeddings chapter.safetensors
  longgen --embeddings-from chapter.safetensors
  torchrun --nproc-per-node 8 --no-python longgen --batch prompts.jsonl
  accelerate launch --multi_gpu --no_python longgen --batch prompts.jsonl"""


@dataclass(frozen=True)
class Options:
    """The options of `longgen`; the strings below are its help."""

    prompt: Annotated[Positional[str], arg(metavar="[PROMPT]", help_behavior_hint="")] = ""
    """The text to draw, of any length. - reads it from standard input."""

    file: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Read the prompt from a UTF-8 text file instead."""

    batch: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Draw every line of a .txt (a prompt a line) or .jsonl file (a string, or an object with prompt, negative, seed,
    name). Pictures are FOLDER/NAME.png, or the line's number; those that exist are skipped, so that an interrupted
    batch goes on when it is started again. Under torchrun or accelerate launch the processes share the lines, each on
    its own GPU; on several machines in a folder that all of them see."""

    embeddings: Annotated[Path | None, arg(metavar="FILE.safetensors|FOLDER", help_behavior_hint="")] = None
    """Draw nothing: save what the text encoder makes of the prompt, to draw from it later. A FILE.safetensors is
    overwritten. With --batch a FOLDER, which gets NAME.safetensors for every line that has none there. The tensors have
    the names of the pipeline's arguments, so that stock diffusers draws the same picture without text encoder and
    without this package: pipe(**load_file(FILE)). Prompt and settings are in the file's metadata. There are no
    negatives in it where guidance is 1 or less."""

    embeddings_from: Annotated[Path | None, arg(metavar="FILE|FOLDER", help_behavior_hint="")] = None
    """Draw from a file that --embeddings saved, instead of a prompt; from all of a FOLDER, as from the lines of a
    --batch. Loads no text encoder. Seed, steps, guidance and size are those that were saved, unless given here; it
    must be a model of the same family."""

    model: Annotated[str | None, arg(metavar="MODEL", help_behavior_hint="(default: $LONGGEN_MODEL, else bundled)")] = (
        None
    )
    """Stable Diffusion 1.x, 2.x or XL: a diffusers folder, a checkpoint file or a hub id."""

    longclip: Annotated[str, arg(metavar="auto|stretch|none|SOURCE")] = "auto"
    """The long text encoder: the one that fits the model; the model's own, stretched without training; the model's own
    as it is; or a file, folder or hub id."""

    negative: Annotated[str, arg(metavar="TEXT", help_behavior_hint="")] = ""
    """What the picture should not show; of any length too."""

    steps: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the model's, else 30)")] = None
    """Steps of denoising."""

    guidance: Annotated[float | None, arg(metavar="X", help_behavior_hint="(default: the model's, else 7.5)")] = None
    """How strictly the picture follows the prompt; 1 or less turns guidance off."""

    seed: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: random, and printed)")] = None
    """Number that decides the noise; the same seed and settings give the same picture."""

    size: Annotated[str | None, arg(metavar="N|WxH", help_behavior_hint="(default: the model's)")] = None
    """Size in pixels, 512 or 768x512."""

    num_images: Annotated[int, arg(metavar="N")] = 1
    """Pictures per prompt, with the seeds SEED, SEED+1, ..."""

    syntax: Annotated[
        Literal["plain", "a1111", "a1111-mean", "compel"] | None,
        arg(metavar="plain|a1111|a1111-mean|compel", help_behavior_hint="(default: the model's, else plain)"),
    ] = None
    """How prompt and negative are written. plain: every bracket and sign is text. a1111: (x), [x], (x:1.3), escapes
    \\( \\), and BREAK starts a window; a1111-mean: the same with A1111's own arithmetic. compel: x++, (x)1.3, .blend(),
    .and()."""

    window: Annotated[str | None, arg(metavar="auto|N", help_behavior_hint="(default: the model's, else auto)")] = None
    """Tokens the encoder reads at once; auto is its own length."""

    context: Annotated[
        Literal["auto", "none", "related"] | None,
        arg(metavar="auto|none|related", help_behavior_hint="(default: the model's, else auto)"),
    ] = None
    """related: read each later sentence behind the earlier ones it needs; none: read every window by itself; auto:
    related, but none where BREAK or .and() says where windows begin."""

    compare: bool = False
    """Put the picture that stock diffusers draws of the first 77 tokens beside the long one, same seed."""

    tokens: bool = False
    """Only print how the prompt is cut into windows."""

    out: Annotated[
        str | None, arg(metavar="FILE.png|FOLDER", help_behavior_hint="(default: longgen.png, longgen-2.png ...)")
    ] = None
    """Where to write. A FILE.png is overwritten; in a FOLDER nothing is (the next free longgen-N.png). Several pictures
    of one FILE.png are FILE-1.png, FILE-2.png ... A batch's default FOLDER has the name of the batch file."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: a GPU if there is one."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto: float16 on a GPU, float32 on the CPU."""

    attention: Literal["sdpa", "xformers"] = "sdpa"
    """xformers needs a GPU and the extra longclip-diffusers[xformers]."""

    offload: bool = False
    """Keep only the part of the model on the GPU that is at work: slower, in less memory."""

    debug: bool = False
    """Show the traceback of an error, and what the libraries say."""

    def __post_init__(self) -> None:
        sources = [self.prompt != "", *(each is not None for each in (self.file, self.batch, self.embeddings_from))]
        if sum(sources) != 1:
            problem = "no prompt, or an empty one" if not any(sources) else "several prompts"
            raise UsageError(
                f"{problem}: give a text, --file FILE, --batch FILE, - for standard input, or --embeddings-from FILE, "
                "one of them."
            )
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"--seed {self.seed} is out of range: expected 0 to {MAX_SEED}.")
        if self.num_images < 1:
            raise UsageError(f"--num-images {self.num_images}: expected 1 or more.")
        if self.window not in (None, "auto") and not re.fullmatch(r"\d+", self.window):
            raise UsageError(f"--window {self.window}: expected auto or a number of tokens.")
        if self.size is not None and not re.fullmatch(r"\d+(x\d+)?", self.size):
            raise UsageError(f"--size {self.size}: expected pixels, 512 or 768x512.")
        self._check_embeddings()
        if self.is_batch and self.file_out:
            what = f"--embeddings {self.embeddings}" if self.embeddings else f"--out {self.out}"
            raise UsageError(f"{what}: a batch is {'saved' if self.embeddings else 'drawn'} into a folder.")
        if self.out and not self.file_out and Path(self.out).suffix and not Path(self.out).is_dir():
            raise UsageError(f"--out {self.out}: expected a name that ends in .png, or a folder.")

    def _check_embeddings(self) -> None:
        if self.embeddings_from:
            self._refuse("--embeddings-from: the prompt was read before", "embeddings", *READING)
        if self.embeddings:
            self._refuse("--embeddings: nothing is drawn", "tokens", "compare", "out", "num_images")
            if not self.batch and not self.file_out:
                raise UsageError(f"--embeddings {self.embeddings}: expected a name that ends in {self.suffix}.")

    def _refuse(self, reason: str, *names: str) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        if given := [name for name in names if getattr(self, name) != defaults[name]]:
            raise UsageError(f"{reason}, so leave out --{given[0].replace('_', '-')}.")

    @property
    def is_batch(self) -> bool:
        """Whether there are several requests: the lines of a file, or a folder of embeddings."""
        return self.batch is not None or (self.embeddings_from is not None and self.embeddings_from.is_dir())

    @property
    def suffix(self) -> str:
        """Of the files that are written."""
        return ".safetensors" if self.embeddings else ".png"

    @property
    def file_out(self) -> Path | None:
        """The one file to write; None where `folder` takes any number."""
        out = self._written_to
        return Path(out) if out and out.endswith(self.suffix) and not Path(out).is_dir() else None

    @property
    def folder(self) -> Path:
        """Where files are written."""
        if self.file_out:
            return self.file_out.parent
        if self._written_to or not self.is_batch:
            return Path(self._written_to or ".")
        return Path(self.batch.stem if self.batch else self.embeddings_from.name)  # type: ignore[union-attr]

    @property
    def _written_to(self) -> str | None:
        return str(self.embeddings) if self.embeddings else self.out

    @property
    def width_and_height(self) -> tuple[int, int] | None:
        """The size as numbers; None is the model's."""
        if self.size is None:
            return None
        width, _, height = self.size.partition("x")
        return int(width), int(height or width)

    @property
    def prompt_options(self) -> dict[str, Any]:
        """Which encoder and how it reads, as a long pipeline's `from_pretrained` takes them."""
        window = int(self.window) if self.window and self.window != "auto" else self.window
        longclip = None if self.longclip == "none" else self.longclip
        return {"longclip": longclip, "window": window, "context": self.context, "syntax": self.syntax}
