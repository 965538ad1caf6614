"""Tensors and a config -> a transformers model in which every weight is accounted for."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel, PreTrainedModel

from ..errors import CheckpointError
from ..text_encoder import keep_text_model_prefix
from .formats import some_of

__all__ = ["build_model"]

_COMPUTABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Model = TypeVar("Model", bound=PreTrainedModel)


def build_model(
    cls: type[Model],
    config: CLIPConfig | CLIPTextConfig,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    dtype: torch.dtype | None = None,
) -> Model:
    """`cls(config)` holding copies of exactly these tensors, in evaluation mode; nothing is left to chance.

    Args:
        tensors: under the names of a CLIPModel (`text_model.` and so on), whatever `cls` calls them.
        source: what the errors call the checkpoint.
        dtype: of all weights; None keeps the tensors' own where they share one, else float32, which loses nothing.

    Raises:
        CheckpointError: a weight is missing, left over, of another shape, quantised, NaN or infinite.
    """
    with torch.device("meta"):  # neither time nor random numbers for values that are all replaced
        model = cls(config)
    if cls is CLIPTextModel and not hasattr(model, "text_model"):  # transformers >= 5.6
        tensors = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    _check_names_and_shapes(tensors, model.state_dict(), source)
    dtype = dtype or _own_dtype(tensors.values())
    weights = {key: value.to(dtype, copy=True).contiguous() for key, value in tensors.items()}
    for key, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{source}: {key} holds NaN or infinite values in {dtype}. Get an undamaged copy.")
    model.load_state_dict(weights, assign=True)
    for module in model.modules():
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, Tensor):  # a buffer that no file holds
            module.position_ids = torch.arange(positions.shape[-1]).expand((1, -1))
    return keep_text_model_prefix(model.eval())


def _own_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    dtypes = {tensor.dtype for tensor in tensors}
    only = dtypes.pop()
    return only if not dtypes and only in _COMPUTABLE else torch.float32


def _check_names_and_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    if missing := [key for key in expected if key not in tensors]:
        raise CheckpointError(f"{source} lacks {some_of(missing)}. It is incomplete; nothing was filled in.")
    if extra := [key for key in tensors if key not in expected]:
        raise CheckpointError(f"{source} holds {some_of(extra)}, which its tower has no place for.")
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{source}: {key} has shape {tuple(tensor.shape)}; "
                f"the other weights ask for {tuple(expected[key].shape)}."
            )
        if not tensor.is_floating_point():
            raise CheckpointError(f"{source}: {key} is {tensor.dtype}; quantised weights are not supported.")
