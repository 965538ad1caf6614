"""Stable Diffusion 3 and Flux: their CLIP side reads long prompts, T5 stays stock's. Nothing was trained for it.

Both read most of a prompt through T5 (256 or 512 tokens, cut off and logged by stock beyond). What a longer CLIP side
brings was never measured; the model saw 77 rows of it in training. Hence experimental.

The long encoder takes the short one's place after stock's constructor has run. That is as if it had been built with
it: the constructor keeps one value of tokenizer or encoder, `tokenizer_max_length`, and `load_longclip` sets it anew.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .components import FIRST, SECOND
from .conditioning import encode_plans, num_rows
from .errors import ModelError, PromptError
from .mixin import LongMixin
from .positions import CLIP_LENGTH
from .towers import Tower, common_window
from .windows import WindowPlan

__all__ = ["LongPromptFluxMixin", "LongPromptSD3Mixin"]


class _ClipSideMixin(LongMixin):
    _t5: str  # the end of its components' names

    def load_longclip(self, *args: Any, **kwargs: Any) -> None:
        """As in the other families; see there."""
        super().load_longclip(*args, **kwargs)
        if self.tokenizer is not None:  # stock fixes this when it is built, and would go on at 77
            self.tokenizer_max_length = self.tokenizer.model_max_length

    def _plans(self, tower: Tower, texts: list[str], window: int, context: str | None = None) -> list[WindowPlan]:
        if (syntax := self.prompt_options.syntax) != "plain":
            raise PromptError(
                f"syntax is {syntax!r}; this family reads 'plain' only, T5 would read the brackets as text."
            )
        return super()._plans(tower, texts, window, context)

    def _get_t5_prompt_embeds(self, prompt: str | list[str], *args: Any, **kwargs: Any) -> Tensor:
        # Stock tells of what it cuts off to diffusers' logger alone, which commands silence.
        encoder, tokenizer = (getattr(self, name + self._t5) for name in (FIRST, "tokenizer"))
        limit = kwargs["max_sequence_length"]
        for text in _listed(prompt) if encoder is not None else ():
            if (length := len(tokenizer(text, verbose=False).input_ids)) > limit:
                warnings.warn(f"Of {length} tokens T5 reads the first {limit}, max_sequence_length.", stacklevel=2)
        return super()._get_t5_prompt_embeds(prompt, *args, **kwargs)


class LongPromptSD3Mixin(_ClipSideMixin):
    """Put before a stock pipeline of the SD3 signature. Experimental, see the module.

    CLIP's L rows (77, or whole windows) stand before T5's `max_sequence_length`, so that T5's move along: a place in
    which SD3 never saw them. How its second encoder reads what is longer is `g_mode`, as in `LongPromptXLMixin`.
    """

    clip_encoders = (FIRST, SECOND)
    _t5 = "_3"
    _clip_rows: int | None = None  # of the call in progress

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        prompt_2: str | list[str] | None = None,
        prompt_3: str | list[str] | None = None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        negative_prompt_3: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        clip_skip: int | None = None,
        max_sequence_length: int = 256,
        lora_scale: float | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Stock's four tensors, (B * images, L + max_sequence_length, D) and pooled; arguments are stock's.

        Raises:
            PromptError: a text needs more rows than the embeddings given beside it have.
            ModelError: a CLIP text encoder is missing, or does not go with its tokenizer.
        """
        texts: list[tuple[Any, Any]] = []
        if prompt_embeds is None:
            texts.append((prompt, prompt_2 or prompt))
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            texts.append((negative_prompt or "", negative_prompt_2 or negative_prompt or ""))
        given = negative_prompt_embeds if prompt_embeds is None else prompt_embeds
        given_rows = None if given is None or not do_classifier_free_guidance else given.shape[1] - max_sequence_length
        with self._rows_for(texts, given_rows):
            return super().encode_prompt(
                prompt,
                prompt_2,
                prompt_3,
                device,
                num_images_per_prompt,
                do_classifier_free_guidance,
                negative_prompt=negative_prompt,
                negative_prompt_2=negative_prompt_2,
                negative_prompt_3=negative_prompt_3,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                pooled_prompt_embeds=pooled_prompt_embeds,
                negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
                clip_skip=clip_skip,
                max_sequence_length=max_sequence_length,
                lora_scale=lora_scale,
            )

    def _get_clip_prompt_embeds(
        self,
        prompt: str | list[str],
        num_images_per_prompt: int = 1,
        device: torch.device | None = None,
        clip_skip: int | None = None,
        clip_model_index: int = 0,
    ) -> tuple[Tensor, Tensor]:
        # The one step of stock's encode_prompt that knows how long CLIP's side is.
        towers = self._towers()
        tower = towers[clip_model_index]
        window = common_window(self.prompt_options.window, towers)
        plans = self._plans(tower, _listed(prompt), window)
        embeds, pooled = encode_plans(
            plans,
            tower.tokenizer,
            tower.text_encoder,
            rows=self._clip_rows or num_rows(plans, window=window),
            clip_skip=clip_skip,
            penultimate=True,
        )
        assert pooled is not None  # both towers have a projection
        embeds = embeds.to(dtype=self.text_encoder.dtype, device=device)
        return embeds.repeat_interleave(num_images_per_prompt, 0), pooled.repeat_interleave(num_images_per_prompt, 0)

    @contextmanager
    def _rows_for(self, texts: Sequence[tuple[Any, Any]], given_rows: int | None) -> Iterator[None]:
        # Prompts and negatives of both towers end with one number of rows; stock's calls do not know of one another.
        towers = self._towers() if texts else []
        window = common_window(self.prompt_options.window, towers) if texts else 0
        plans = [
            plan
            for pair in texts
            for tower, text in zip(towers, pair, strict=True)
            for plan in self._plans(tower, _listed(text), window)
        ]
        needed = num_rows(plans, window=window) if plans else None
        if given_rows is not None and needed is not None and max(plan.num_tokens + 2 for plan in plans) > given_rows:
            raise PromptError(
                f"Embeddings with {given_rows} CLIP rows were given beside a text of {needed}, which must end with as "
                "many. Encode both together, or give a shorter text."
            )
        self._clip_rows = given_rows or needed
        try:
            yield
        finally:
            self._clip_rows = None

    def _towers(self) -> list[Tower]:
        if self.text_encoder is None or self.text_encoder_2 is None:
            raise ModelError("Long prompts of this pipeline need both of its CLIP text encoders: give prompt_embeds.")
        return [Tower(self.tokenizer, self.text_encoder, penultimate=True), self._second_tower()]


class LongPromptFluxMixin(_ClipSideMixin):
    """Put before a stock pipeline of the Flux signature. Experimental, see the module.

    Flux takes from CLIP one pooled vector: that of the first window, 248 tokens of a Long-CLIP. What follows is T5's.
    """

    _t5 = "_2"

    def _get_clip_prompt_embeds(
        self, prompt: str | list[str], num_images_per_prompt: int = 1, device: torch.device | None = None
    ) -> Tensor:
        # The one step of stock's encode_prompt that reads with CLIP.
        towers = self._towers()
        plans = self._plans(towers[0], _listed(prompt), common_window(self.prompt_options.window, towers))
        for plan in plans:
            if (read := len(plan.windows[0].own_ids)) < plan.num_tokens:
                warnings.warn(
                    f"Of {plan.num_tokens} tokens CLIP reads the first {read}, its first window: Flux takes one vector "
                    "from it. T5 reads on.",
                    stacklevel=4,  # the caller of the pipeline
                )
        pooled = self._end_states([plan.windows[0].ids for plan in plans], plans[0].window)
        return pooled.to(dtype=self.text_encoder.dtype, device=device).repeat_interleave(num_images_per_prompt, 0)

    def _end_states(self, windows: Sequence[tuple[int, ...]], longest: int) -> Tensor:
        # Each window's state at EOS, normalised: what transformers pools, but for textual inversions in old configs.
        rows = longest if max(map(len, windows)) > CLIP_LENGTH else min(CLIP_LENGTH, longest)
        ids = torch.tensor([[*ids, *[self.tokenizer.pad_token_id] * (rows - len(ids))] for ids in windows])
        device = self.text_encoder.device  # "meta" where accelerate keeps the weights; its hooks then move the ids
        states = self.text_encoder(ids if device.type == "meta" else ids.to(device)).last_hidden_state
        return states[range(len(windows)), [len(ids) - 1 for ids in windows]]

    def _towers(self) -> list[Tower]:
        if self.text_encoder is None:
            raise ModelError("This pipeline has no CLIP text encoder: give prompt_embeds and pooled_prompt_embeds.")
        return [Tower(self.tokenizer, self.text_encoder)]


def _listed(prompt: str | list[str]) -> list[str]:
    return [prompt] if isinstance(prompt, str) else prompt
