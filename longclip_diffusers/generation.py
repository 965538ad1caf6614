"""From a prompt to a picture: which model, on which device, and the truncating twin to compare with."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from .errors import LongClipError, ModelError, PromptError
from .kv_cache import PromptCacheMixin
from .loading import stock_class, with_dtype
from .mixin import LongMixin
from .pictures import side_by_side
from .pipelines import AutoLongPipeline
from .positions import CLIP_LENGTH
from .sidecar import Generation
from .text_encoder import num_positions

__all__ = [
    "Painter",
    "Placement",
    "check_size",
    "load_painting_part",
    "load_pipeline",
    "load_reader",
    "truncating_twin",
]

SIZE_STEP = 8  # diffusers refuses pictures whose sides are not multiples of it
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """Where and how a model computes.

    device: auto (cuda, else mps, else cpu), cuda, cuda:N, mps or cpu. dtype: auto (float16 on cuda and mps, else
    float32), float32, float16 or bfloat16. attention: sdpa or xformers (CUDA). offload: keep on the device only what
    computes.
    """

    device: str = "auto"
    dtype: str = "auto"
    attention: str = "sdpa"
    offload: bool = False

    def resolve(self) -> tuple[torch.device, torch.dtype]:
        """The device and the dtype that are meant.

        Raises:
            ModelError: the device is not there, or cannot do what is asked of it.
        """
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        device = next(name for name in there if there[name]) if self.device == "auto" else self.device
        kind = device.partition(":")[0]
        if not there.get(kind):
            raise ModelError(f"No {device} device here (PyTorch {torch.__version__}). Use device auto or cpu.")
        if kind == "cpu" and self.offload:
            raise ModelError("offload needs a GPU, and this runs on the CPU. Leave it out.")
        if kind != "cuda" and self.attention == "xformers":
            raise ModelError(f"attention xformers needs a GPU with CUDA, and this runs on the {device}. Leave it out.")
        if self.dtype == "auto":
            return torch.device(device), torch.float32 if kind == "cpu" else torch.float16
        return torch.device(device), DTYPES[self.dtype]

    def place(self, pipe: DiffusionPipeline) -> None:
        """Bring a pipeline there; a long one caches its prompts, unless memory is to be saved.

        Raises:
            ModelError: xformers is asked for, and not installed or of no use here.
        """
        device, _ = self.resolve()
        if self.attention == "xformers":
            try:
                pipe.enable_xformers_memory_efficient_attention()
            except ModuleNotFoundError as error:
                raise ModelError("xformers is not installed: pip install 'longclip-diffusers[xformers]'.") from error
            except (ImportError, NotImplementedError, RuntimeError) as error:
                raise ModelError(
                    f"xformers is installed and does not work with PyTorch {torch.__version__} here "
                    f"({_first_line(error)}). Use attention sdpa."
                ) from error
        if isinstance(pipe, PromptCacheMixin) and not self.offload:
            pipe.enable_prompt_cache()
        if self.offload:
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.to(device)


def load_pipeline(model: str | Path, placement: Placement | None = None, **options: Any) -> LongMixin:
    """The long pipeline of a model folder, hub id or single checkpoint file, ready to draw.

    Args:
        placement: device, dtype and attention; None is the best that is here.
        **options: of `AutoLongPipeline.from_pretrained`: longclip, window, context, syntax ...

    Raises:
        LongClipError: no such model, no such device, or an encoder that does not fit.
    """
    placement = placement or Placement()
    _, dtype = placement.resolve()
    pipe = _open(model, dtype=dtype, **options)
    placement.place(pipe)
    return pipe


def load_reader(model: str | Path, placement: Placement | None = None, **options: Any) -> LongMixin:
    """The same with text encoder and tokenizer only: it plans and encodes prompts (`plan_prompt`, `encode_prompt`).

    Args:
        placement: None leaves the encoder on the CPU, in the dtype of its file, for planning alone.
    """
    unused = ("unet", "vae", "scheduler", "safety_checker", "feature_extractor", "image_encoder")
    if placement is None:
        return _open(model, **dict.fromkeys(unused), **options)
    _, dtype = placement.resolve()
    pipe = _open(model, **dict.fromkeys(unused), dtype=dtype, **options)
    placement.place(pipe)
    return pipe


def load_painting_part(model: str | Path, placement: Placement | None = None) -> LongMixin:
    """The same as `load_pipeline` without text encoder and tokenizer: it draws from embeddings."""
    unused = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return load_pipeline(model, placement, longclip=None, **dict.fromkeys(unused))


def truncating_twin(pipe: LongMixin, model: str | Path, placement: Placement | None = None) -> DiffusionPipeline:
    """Stock diffusers' pipeline of the same model: its own 77-row text encoder, every other component `pipe`'s.

    Raises:
        ModelError: the model's own text encoder is long, so that nothing truncates.
    """
    own = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    shared = {name: component for name, component in pipe.components.items() if name not in own}
    stock = stock_class(type(pipe))
    with _model_errors(model):
        load = stock.from_single_file if Path(model).is_file() else stock.from_pretrained
        twin = load(str(model), **with_dtype({"dtype": pipe.dtype}), **shared)
    encoders = [encoder for name in pipe.clip_encoders if (encoder := getattr(twin, name)) is not None]
    if (rows := max(map(num_positions, encoders))) > CLIP_LENGTH:
        raise ModelError(
            f"A comparison needs a text encoder of {CLIP_LENGTH} rows for its truncated side, and {model} has "
            f"one of {rows}. Give the Stable Diffusion it came from as the model and the long encoder as longclip."
        )
    (placement or Placement()).place(twin)
    return twin


def check_size(pipe: DiffusionPipeline, size: tuple[int, int] | None) -> None:
    """Refuse a size (width, height) that this pipeline's autoencoder cannot give exactly.

    Raises:
        PromptError: a side is not a positive multiple of the autoencoder's factor.
    """
    step = math.lcm(SIZE_STEP, pipe.vae_scale_factor)
    if size and any(side < step or side % step for side in size):
        raise PromptError(f"size {size[0]}x{size[1]}: this model's sides are multiples of {step}, {step} or more.")


@dataclass(frozen=True)
class Painter:
    """A model and how it draws: called with a prompt and a seed it gives the picture.

    The same seed gives the same noise on every device. size: (width, height), None is the one the model was trained
    with. twin: a `truncating_twin`, whose picture is put beside.

    Raises:
        ModelError: the model draws from a picture too (inpainting, SDXL's refiner, ControlNet).
        PromptError: a size that it cannot give.
    """

    pipe: LongMixin
    generation: Generation
    size: tuple[int, int] | None = None
    twin: DiffusionPipeline | None = None

    def __post_init__(self) -> None:
        kind = type(self.pipe)
        if "image" in signature(kind.__call__).parameters:
            raise ModelError(
                f"This model is for {stock_class(kind).__name__}, which draws from a picture too, not from text alone. "
                f"Give another model, or use {kind.__name__} in Python."
            )
        check_size(self.pipe, self.size)

    def __call__(self, prompt: str, *, seed: int, negative: str = "") -> Image.Image:
        """One picture, or the labelled pair.

        Raises:
            LongClipError: a prompt that the model cannot take.
        """
        read = {"prompt": prompt, "negative_prompt": negative or None}
        if self.twin is None:
            return self._draw(self.pipe, seed, read)
        num_tokens = self.pipe.plan_prompt(prompt).num_tokens
        pipes = {f"truncated at {CLIP_LENGTH}": self.twin, f"all {num_tokens} tokens": self.pipe}
        return side_by_side([(label, self._draw(pipe, seed, read)) for label, pipe in pipes.items()])

    def from_embeddings(self, tensors: Mapping[str, Tensor], *, seed: int) -> Image.Image:
        """The picture of a prompt that `encode_embeddings` read; of what `check_embeddings` lets pass."""
        device = self.pipe._execution_device
        return self._draw(self.pipe, seed, {name: tensor.to(device) for name, tensor in tensors.items()})

    @property
    def trained_size(self) -> tuple[int, int]:
        """(width, height) of what the model draws where nothing else is asked for, as diffusers works it out."""
        # SDXL and later know it themselves; SD3 and Flux have no UNet.
        size = getattr(self.pipe, "default_sample_size", None) or self.pipe.unet.config.sample_size
        factor = self.pipe.vae_scale_factor
        height, width = (size, size) if isinstance(size, int) else size
        return width * factor, height * factor

    def _draw(self, pipe: DiffusionPipeline, seed: int, read: Mapping[str, Any]) -> Image.Image:
        width, height = self.size or (None, None)
        result = pipe(
            **read,
            num_inference_steps=self.generation.steps,
            guidance_scale=self.generation.guidance,
            width=width,
            height=height,
            generator=torch.Generator("cpu").manual_seed(seed),
        )
        if any(getattr(result, "nsfw_content_detected", None) or ()):  # SDXL has no safety checker
            warnings.warn("the safety checker blackened the picture; try another seed.", UserWarning, stacklevel=1)
        return result.images[0]


def _open(model: str | Path, **options: Any) -> LongMixin:
    with _model_errors(model):
        if Path(model).is_file():
            return AutoLongPipeline.from_single_file(model, **options)
        return AutoLongPipeline.from_pretrained(model, **options)


@contextmanager
def _model_errors(model: str | Path) -> Iterator[None]:
    # diffusers and the hub raise OSError and ValueError, often over many lines; the first says what it is.
    try:
        yield
    except LongClipError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{str(model)!r} is no model that can be opened: expected a diffusers folder, a checkpoint file, or the id "
            f"of a model on the hub ({_first_line(error)})."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
