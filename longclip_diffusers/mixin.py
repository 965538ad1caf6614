"""What makes a stock pipeline long: the way its prompts are encoded. One mixin for a family of pipelines."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from diffusers.loaders import (
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
    TextualInversionLoaderMixin,
)
from diffusers.utils import USE_PEFT_BACKEND
from diffusers.utils.peft_utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from .components import FIRST, NO_LIMIT, SECOND, limited
from .conditioning import TooFewRowsError, num_rows
from .errors import ModelError, PromptError
from .kv_cache import PromptCacheMixin
from .loading import LongLoadingMixin
from .positions import CLIP_LENGTH
from .syntax import parse_prompt
from .towers import Tower, common_window, encode_together
from .windows import WindowPlan

__all__ = ["LongMixin", "LongPromptMixin", "LongPromptXLMixin"]

Encoded = tuple[Tensor | None, Tensor | None]  # embeds (B, L, D) and pooled (B, P); None where there is none


class LongMixin(LongLoadingMixin):
    """What the families share. `prompt_options` says how prompts are read and may be replaced at any time."""

    def plan_prompt(self, prompt: str) -> WindowPlan:
        """The windows in which this pipeline reads `prompt`; printed it is a report of what goes where."""
        towers = self._towers()
        return self._plans(towers[0], [prompt], common_window(self.prompt_options.window, towers))[0]

    @abstractmethod
    def _towers(self) -> list[Tower]:
        """The encoders that read, in the order in which their states stand side by side; ModelError where none is."""

    def _second_tower(self) -> Tower:
        """bigG as `g_mode` has it read."""
        mode = self.prompt_options.g_mode
        how = {"first_only": mode == "first77", "whole": mode == "stretch"}
        return Tower(self.tokenizer_2, self.text_encoder_2, penultimate=True, **how)

    def _encode(
        self,
        positive: Sequence[list[str]],
        negative: Sequence[list[str]],
        *,
        given: Tensor | None,
        lora_scale: float | None,
        clip_skip: int | None,
    ) -> tuple[Encoded, Encoded]:
        """Both sides encoded to one number of rows, that of `given` (B, L, D) if there is one.

        A side is a list of B texts for each tower, or empty where nothing is to be encoded.
        """
        if not positive and not negative:
            return (None, None), (None, None)
        towers = self._towers()
        window = common_window(self.prompt_options.window, towers)
        context = self.prompt_options.context_of(text for side in (*positive, *negative) for text in side)
        plans = [
            [self._plans(tower, texts, window, context) for tower, texts in zip(towers, side, strict=True)]
            if side
            else []
            for side in (positive, negative)
        ]
        rows = num_rows([plan for side in plans for each in side for plan in each], window=window)
        if rows > CLIP_LENGTH and getattr(self, "free_noise_enabled", False):
            raise ModelError(
                f"FreeNoise reads prompts and negatives in two calls, which must have as many rows: a text of {rows} "
                f"does not go with it. Take texts of {CLIP_LENGTH} tokens at most, or disable_free_noise()."
            )
        skips = clip_skip, None  # diffusers skips no layer for the negative
        with self._lora_scaled(towers, lora_scale), _blaming(given):
            encoded = [
                encode_together(towers, side, rows=rows if given is None else given.shape[1], clip_skip=skip)
                if side
                else (None, None)
                for side, skip in zip(plans, skips, strict=True)
            ]
        return encoded[0], encoded[1]

    def _plans(self, tower: Tower, texts: list[str], window: int, context: str | None = None) -> list[WindowPlan]:
        # context: of the whole call; None where these are all of its texts.
        tokenizer, options = tower.tokenizer, self.prompt_options
        prompts = [parse_prompt(text, options.syntax) for text in texts]
        context = options.context_of(texts) if context is None else context
        inversions = tokenizer.get_added_vocab().keys() - {*tokenizer.all_special_tokens}
        if inversions and isinstance(self, TextualInversionLoaderMixin):
            # A copy without a limit, or transformers warns of text that no encoder is going to see whole.
            convert = partial(self.maybe_convert_prompt, tokenizer=limited(tokenizer, NO_LIMIT))
            prompts = [prompt.converted(convert) for prompt in prompts]
        return [tower.plan(prompt, window=window, context=context) for prompt in prompts]

    @contextmanager
    def _lora_scaled(self, towers: Sequence[Tower], scale: float | None) -> Iterator[None]:
        # Stock scales inside its own encode_prompt, which no longer encodes anything.
        loaders = (StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin)
        if scale is None or not USE_PEFT_BACKEND or not isinstance(self, loaders):
            yield
            return
        for tower in towers:
            scale_lora_layers(tower.text_encoder, scale)
        try:
            yield
        finally:
            for tower in towers:
                unscale_lora_layers(tower.text_encoder, scale)


class LongPromptMixin(PromptCacheMixin, LongMixin):
    """Put before a stock pipeline of the SD 1.x/2.x signature: `class XLong(LongPromptMixin, X)`. No `__init__`.

    Prompts of any length are read whole, in windows; denoising, LoRA, IP-Adapter, callbacks and offload are stock's.
    """

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: torch.device | None,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings (B * images, L, D) of prompts and negatives of any length; arguments are the stock pipeline's.

        All texts end with the same number of rows L, the shorter ones filled with windows of empty text; given
        embeddings set L for the texts beside them. As in stock, `clip_skip` is for the positive prompt only.

        Raises:
            PromptError: a text needs more rows than the embeddings given beside it have, or a batch does not match.
            TypeError: `negative_prompt` is not of the type of `prompt`.
            ModelError: the text encoder is missing, or does not go with the tokenizer; a text too long for FreeNoise.
        """
        positive = _texts(prompt) if prompt_embeds is None else []
        negative: list[str] = []
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            num_prompts = len(positive) if prompt_embeds is None else len(prompt_embeds)
            _check_types(prompt, negative_prompt)
            negative = _batch("" if negative_prompt is None else negative_prompt, num_prompts, "negative_prompt")
        given = negative_prompt_embeds if positive else prompt_embeds
        encoded = self._encode(
            [positive] if positive else [],
            [negative] if negative else [],
            given=given if do_classifier_free_guidance else None,
            lora_scale=lora_scale,
            clip_skip=clip_skip,
        )
        return super().encode_prompt(
            None,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            prompt_embeds=encoded[0][0] if positive else prompt_embeds,
            negative_prompt_embeds=encoded[1][0] if negative else negative_prompt_embeds,
            lora_scale=lora_scale,
            clip_skip=clip_skip,
        )

    def _towers(self) -> list[Tower]:
        if self.text_encoder is None:
            raise ModelError("This pipeline has no text encoder: give prompt_embeds and negative_prompt_embeds.")
        return [Tower(self.tokenizer, self.text_encoder)]


class LongPromptXLMixin(PromptCacheMixin, LongMixin):
    """Put before a stock pipeline of the SDXL signature, base or refiner: `class XLong(LongPromptXLMixin, X)`.

    Both encoders give their penultimate states, and end with equal numbers of rows. Long-CLIP exists for the first one
    (768 wide); `prompt_options.g_mode` says how the second, OpenCLIP's bigG of 77 rows, reads what is longer:

    - "chunk" (default): in windows of its own length whose inner start, end and padding rows are dropped, so that row
      r of both encoders comes from the same token. bigG then reads as it was trained to, which is why this is the
      default: in the storybook an encoder stretched but not trained loses a quarter of a long caption's details,
      windows next to none (samples/proof); of SDXL's own pictures nobody published a measurement. An encoder 2 that is
      long itself reads whole windows under this name, so trained weights are used to their full length.
    - "stretch": `load_longclip` stretches it (KPS) to read whole windows. Its rows beyond 77 are untrained, which a
      warning says; Long-CLIP's own SDXL script does this and its authors report worse faces.
    - "first77": it reads the first 77 rows as stock SDXL does, and the rest of the text through encoder 1 only.

    With `context="related"` the rows are those of the text's tokens in order, in every mode. Rows are aligned where
    both encoders read the same text and both tokenizers know the same textual inversions; not with `prompt_2`.
    The refiner has encoder 2 only: it reads in windows of that one's length.

    The pooled vector is that of the text without its weights' signs, as stock SDXL pools it. So of CompelForSDXL, which
    pools "a red++ cat" signs and all, `syntax="compel"` has the embeddings on one window and not the pooled vector.
    """

    clip_encoders = (FIRST, SECOND)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        prompt_2: str | list[str] | None = None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Embeddings (B * images, L, D) and pooled vectors (B * images, P) of prompts, then of negatives, as stock's.

        The four are: embeddings, negative embeddings, pooled, negative pooled; pooled comes from encoder 2's first
        window. As in stock, an absent negative is zeros where the model's `force_zeros_for_empty_prompt` says so,
        an empty `prompt_2` is `prompt`, and `clip_skip` is for the positive prompt only.

        Raises:
            PromptError: a text needs more rows than the embeddings given beside it have, or a batch does not match.
            ModelError: a text encoder is missing, or does not go with its tokenizer.
        """
        zeros = negative_prompt is None and self.config.force_zeros_for_empty_prompt
        positive: list[list[str]] = []
        negative: list[list[str]] = []
        if prompt_embeds is None:
            texts = _texts(prompt)
            positive = self._sides(texts, prompt_2, len(texts), "prompt")
        if do_classifier_free_guidance and negative_prompt_embeds is None and not zeros:
            num_prompts = len(positive[0]) if prompt_embeds is None else len(prompt_embeds)
            negative = self._sides(negative_prompt or "", negative_prompt_2, num_prompts, "negative_prompt")
        given = negative_prompt_embeds if positive else prompt_embeds
        encoded = self._encode(
            positive,
            negative,
            given=given if do_classifier_free_guidance else None,
            lora_scale=lora_scale,
            clip_skip=clip_skip,
        )
        if positive:
            prompt_embeds = encoded[0][0]
            pooled_prompt_embeds = encoded[0][1] if pooled_prompt_embeds is None else pooled_prompt_embeds
        if negative:
            negative_prompt_embeds = encoded[1][0]
            if negative_pooled_prompt_embeds is None:
                negative_pooled_prompt_embeds = encoded[1][1]
        return super().encode_prompt(
            None,
            None,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            lora_scale=lora_scale,
        )

    def _sides(
        self, prompt: str | list[str], prompt_2: str | list[str] | None, size: int, name: str
    ) -> list[list[str]]:
        # The texts of each encoder. The refiner, which has one, reads `prompt` in stock too.
        first = _batch(prompt, size, name)
        if self.text_encoder is None:
            if prompt_2:
                message = f"{name}_2 is not read: this pipeline (a refiner) has one text encoder, which reads {name}."
                warnings.warn(message, stacklevel=4)  # 4: the caller of the pipeline
            return [first]
        return [first, _batch(prompt_2 or prompt, size, f"{name}_2")]

    def _towers(self) -> list[Tower]:
        if self.text_encoder_2 is None:
            raise ModelError(
                "This pipeline has no second text encoder: give prompt_embeds, pooled_prompt_embeds and, for guidance, "
                "both negatives of them."
            )
        second = self._second_tower()
        return [second] if self.text_encoder is None else [Tower(self.tokenizer, self.text_encoder, True), second]


def _texts(prompt: str | list[str] | None) -> list[str]:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise PromptError(f"A prompt is a str or a non-empty list of them, not {prompt!r:.60}.")
    return texts


def _batch(prompt: str | list[str], size: int, name: str) -> list[str]:
    texts = _texts(prompt)
    if isinstance(prompt, str):
        return texts * size
    if len(texts) != size:
        raise PromptError(
            f"`{name}` has batch size {len(texts)}, but `prompt` has batch size {size}. Give as many of them as "
            "prompts."
        )
    return texts


def _check_types(prompt: str | list[str] | None, negative_prompt: str | list[str] | None) -> None:
    if prompt is not None and negative_prompt is not None and type(prompt) is not type(negative_prompt):
        raise TypeError(
            f"`negative_prompt` should be the same type to `prompt`, but got {type(negative_prompt)} != {type(prompt)}."
        )


@contextmanager
def _blaming(given: Tensor | None) -> Iterator[None]:
    # Too few rows are the caller's where the caller gave embeddings that set them.
    try:
        yield
    except TooFewRowsError as error:
        if given is None:
            raise
        message = f"Embeddings of {given.shape[1]} rows were given beside a text, which must end with as many. {error}"
        raise PromptError(message) from error
