"""What makes a stock Stable Diffusion pipeline long: the way its prompts are encoded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.utils import USE_PEFT_BACKEND
from diffusers.utils.peft_utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from .components import NO_LIMIT, limited
from .conditioning import encode_plans, num_rows, resolve_window
from .errors import ModelError, PromptError
from .loading import LongLoadingMixin
from .windows import WindowPlan, plan_windows

__all__ = ["LongPromptMixin"]


class LongPromptMixin(LongLoadingMixin):
    """Put before a stock pipeline of the SD 1.x/2.x signature: `class XLong(LongPromptMixin, X)`. No `__init__`.

    Prompts of any length are read whole, in windows; denoising, LoRA, IP-Adapter, callbacks and offload are stock's.
    `prompt_options` says how prompts are read and may be replaced at any time.
    """

    def plan_prompt(self, prompt: str) -> WindowPlan:
        """The windows in which this pipeline reads `prompt`; printed it is a report of what goes where."""
        return self._plans([prompt], self._window())[0]

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
            ModelError: the text encoder is missing, or does not go with the tokenizer.
        """
        positive = _texts(prompt) if prompt_embeds is None else []
        negative: list[str] = []
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            num_prompts = len(positive) if prompt_embeds is None else len(prompt_embeds)
            negative = _negative_texts(prompt, negative_prompt, num_prompts=num_prompts)
        if positive or negative:
            if self.text_encoder is None:
                raise ModelError("This pipeline has no text encoder: give prompt_embeds and negative_prompt_embeds.")
            given = negative_prompt_embeds if positive else prompt_embeds
            given_rows = given.shape[1] if do_classifier_free_guidance and given is not None else None
            with self._lora_scaled(lora_scale):
                encoded = self._encode(positive, negative, given_rows=given_rows, clip_skip=clip_skip)
            prompt_embeds = encoded[0] if positive else prompt_embeds
            negative_prompt_embeds = encoded[1] if negative else negative_prompt_embeds
        return super().encode_prompt(
            None,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            lora_scale=lora_scale,
            clip_skip=clip_skip,
        )

    def _encode(
        self, positive: list[str], negative: list[str], *, given_rows: int | None, clip_skip: int | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Embeddings of both lists (None of an empty one), (B, L, D) with L = `given_rows`; else the texts decide L."""
        window = self._window()
        plans = self._plans(positive, window), self._plans(negative, window)
        rows = given_rows or num_rows([*plans[0], *plans[1]], window=window)
        skips = clip_skip, None  # diffusers skips no layer for the negative
        try:
            positive_embeds, negative_embeds = (
                encode_plans(part, self.tokenizer, self.text_encoder, rows=rows, clip_skip=skip)[0] if part else None
                for part, skip in zip(plans, skips, strict=True)
            )
        except PromptError as error:
            if given_rows is None:
                raise
            message = f"Embeddings of {given_rows} rows were given beside a text, which must end with as many. {error}"
            raise PromptError(message) from error
        return positive_embeds, negative_embeds

    def _window(self) -> int:
        return resolve_window(self.prompt_options.window, self.tokenizer, self.text_encoder)

    def _plans(self, texts: list[str], window: int) -> list[WindowPlan]:
        inversions = self.tokenizer.get_added_vocab().keys() - {*self.tokenizer.all_special_tokens}
        if inversions and isinstance(self, TextualInversionLoaderMixin):
            # A copy without a limit, or transformers warns of text that no encoder is going to see whole.
            texts = self.maybe_convert_prompt(texts, limited(self.tokenizer, NO_LIMIT))
        context = self.prompt_options.context
        return [plan_windows(text, self.tokenizer, window=window, context=context) for text in texts]

    @contextmanager
    def _lora_scaled(self, scale: float | None) -> Iterator[None]:
        # Stock scales inside its own encode_prompt, which no longer encodes anything.
        if scale is None or not USE_PEFT_BACKEND or not isinstance(self, StableDiffusionLoraLoaderMixin):
            yield
            return
        scale_lora_layers(self.text_encoder, scale)
        try:
            yield
        finally:
            unscale_lora_layers(self.text_encoder, scale)


def _texts(prompt: str | list[str] | None) -> list[str]:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise PromptError(f"A prompt is a str or a non-empty list of them, not {prompt!r:.60}.")
    return texts


def _negative_texts(
    prompt: str | list[str] | None, negative_prompt: str | list[str] | None, *, num_prompts: int
) -> list[str]:
    if negative_prompt is None:
        return [""] * num_prompts
    if prompt is not None and type(prompt) is not type(negative_prompt):
        raise TypeError(
            f"`negative_prompt` should be the same type to `prompt`, but got {type(negative_prompt)} != {type(prompt)}."
        )
    texts = _texts(negative_prompt)
    if isinstance(negative_prompt, str):
        return texts * num_prompts
    if len(texts) != num_prompts:
        raise PromptError(
            f"`negative_prompt` has batch size {len(texts)}, but `prompt` has batch size {num_prompts}. Give as many "
            "negatives as prompts."
        )
    return texts
