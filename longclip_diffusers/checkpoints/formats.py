"""Key tables: any layout of CLIP weights -> transformers' names with one position table, and back to OpenAI's names.

A weight's name in the wild is OpenAI's (also Long-CLIP's and open_clip's) or transformers', perhaps behind prefixes.
`RULES` pairs the two; the same engine reads it in both directions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import CheckpointError
from ..positions import CLIP_LENGTH, KEPT_ROWS

__all__ = [
    "POSITION_TABLE",
    "RULES",
    "TOKEN_TABLE",
    "VISION_NAMES",
    "Layout",
    "layer_count",
    "read_layout",
    "some_of",
    "to_openai",
]

POSITION_TABLE = "text_model.embeddings.position_embedding.weight"
TOKEN_TABLE = "text_model.embeddings.token_embedding.weight"


@dataclass(frozen=True)
class Rule:
    """An OpenAI weight and ours; more than one of ours are stacked in it, `{n}` is the layer's number."""

    openai: str
    ours: tuple[str, ...]
    transposed: bool = False


def _block_rules(openai: str, ours: str) -> list[Rule]:
    renamed = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    rules = []
    for part in ("weight", "bias"):
        stacked = tuple(f"{ours}.encoder.layers.{{n}}.self_attn.{name}_proj.{part}" for name in "qkv")
        rules.append(Rule(f"{openai}.resblocks.{{n}}.attn.in_proj_{part}", stacked))
        for old, new in renamed.items():
            rules.append(Rule(f"{openai}.resblocks.{{n}}.{old}.{part}", (f"{ours}.encoder.layers.{{n}}.{new}.{part}",)))
    return rules


RULES: tuple[Rule, ...] = (
    Rule("positional_embedding", (POSITION_TABLE,)),
    Rule("token_embedding.weight", (TOKEN_TABLE,)),
    Rule("ln_final.weight", ("text_model.final_layer_norm.weight",)),
    Rule("ln_final.bias", ("text_model.final_layer_norm.bias",)),
    Rule("text_projection", ("text_projection.weight",), transposed=True),
    Rule("logit_scale", ("logit_scale",)),
    Rule("visual.class_embedding", ("vision_model.embeddings.class_embedding",)),
    Rule("visual.positional_embedding", ("vision_model.embeddings.position_embedding.weight",)),
    Rule("visual.conv1.weight", ("vision_model.embeddings.patch_embedding.weight",)),
    Rule("visual.ln_pre.weight", ("vision_model.pre_layrnorm.weight",)),  # transformers' own spelling
    Rule("visual.ln_pre.bias", ("vision_model.pre_layrnorm.bias",)),
    Rule("visual.ln_post.weight", ("vision_model.post_layernorm.weight",)),
    Rule("visual.ln_post.bias", ("vision_model.post_layernorm.bias",)),
    Rule("visual.proj", ("visual_projection.weight",), transposed=True),
    *_block_rules("transformer", "text_model"),
    *_block_rules("visual.transformer", "vision_model"),
)

# What wrappers put before a name: DataParallel, torch.compile, pipelines, longclip-transformers (a model in a model),
# open_clip's CustomTextCLIP, and, for an encoder saved by transformers >= 5.6, nothing where `text_model.` once stood.
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("module.", ""),
    ("_orig_mod.", ""),
    ("text_encoder.", ""),
    ("text_model.text_model.", "text_model."),
    ("vision_model.vision_model.", "vision_model."),
    ("text.", ""),
)
# Unknown parts of an image tower (a ResNet's, register tokens) do not hinder the text tower.
VISION_NAMES = ("visual.", "vision_model.", "visual_projection.")
_FLAT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
# Long-CLIP's second table, which holds the rows behind the kept ones: official and longclip-transformers.
_SECOND_TABLES = {
    "positional_embedding_res": "positional_embedding",
    "text_model.embeddings.position_embedding_res": POSITION_TABLE,
    "text_model.embeddings.position_embedding_res.weight": POSITION_TABLE,
}
# Buffers and attributes that some versions save; none is a weight.
_NOT_WEIGHTS = re.compile(r"(.*\.)?(position_ids|attn_mask|mask[12]|input_resolution|context_length|vocab_size)")


@dataclass(frozen=True)
class Layout:
    """A file's weights in transformers' names, one position table; `unknown` names fit no part of a CLIP."""

    name: str
    tensors: dict[str, Tensor]
    unknown: tuple[str, ...]


def read_layout(raw: Mapping[str, Tensor], *, kept_rows: int = KEPT_ROWS) -> Layout:
    """The weights of a file in transformers' names, whatever its layout.

    Prefixes go, GmP pairs (`.theta`, `.r`) become weights, Long-CLIP's two position tables become one: rows below
    `kept_rows` from the first, the others from the second.

    Raises:
        CheckpointError: no text tower, or two tables of different shapes.
    """
    named = _without_prefixes(raw)
    folded = _folded(named)
    merged = _with_one_table(folded, kept_rows)
    name = _layout_name(merged, two_tables=len(merged) < len(folded), gmp=len(folded) < len(named))
    side = "openai" if "token_embedding.weight" in merged else "ours"
    if side == "ours" and "text_projection" in merged:  # as older versions of ComfyUI's CLIPSave wrote it
        merged["text_projection.weight"] = merged.pop("text_projection").T.contiguous()
    tensors: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in merged.items():
        rule, number = _rule_of(side, key)
        if rule is None:
            unknown += [] if _NOT_WEIGHTS.fullmatch(key) else [key]
        elif side == "ours":
            tensors[key] = tensor
        else:
            tensors.update(zip((ours.format(n=number) for ours in rule.ours), _parts(rule, tensor), strict=True))
    return Layout(name, tensors, tuple(unknown))


def to_openai(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under OpenAI's names; a long position table is written as both of Long-CLIP's tables."""
    openai: dict[str, Tensor] = {}
    for key in tensors:
        rule, number = _rule_of("ours", key)
        if rule is None:
            raise CheckpointError(f"{key} is not a weight of a CLIP, so it has no name in OpenAI's layout.")
        parts = [tensors[ours.format(n=number)] for ours in rule.ours]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        openai[rule.openai.format(n=number)] = (whole.T if rule.transposed else whole).contiguous()
    if len(openai["positional_embedding"]) > CLIP_LENGTH:
        openai["positional_embedding_res"] = openai["positional_embedding"].clone()
    return openai


def layer_count(names: Iterable[str], tower: str) -> int:
    """Number of transformer layers of `tower` ("text_model" or "vision_model") among our names."""
    pattern = re.compile(rf"{tower}\.encoder\.layers\.(\d+)\.")
    return max((int(match[1]) + 1 for match in map(pattern.match, names) if match), default=0)


def some_of(names: Iterable[str]) -> str:
    """Up to three of the names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


def _without_prefixes(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {_stripped(key): tensor for key, tensor in raw.items()}
    if len(named) < len(raw):
        raise CheckpointError("it holds some weights twice, with and without a prefix; which are meant is unclear.")
    if "embeddings.token_embedding.weight" in named:
        named = {f"text_model.{key}" if key.startswith(_FLAT_PARTS) else key: value for key, value in named.items()}
    return named


def _stripped(key: str) -> str:
    for prefix, instead in _PREFIXES:
        if key.startswith(prefix):
            return _stripped(instead + key.removeprefix(prefix))
    return key


def _folded(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """GmP's `theta` (out, in) and `r` (out, 1) -> weight: zer0int/Long-CLIP, GeometricLinear.forward."""
    folded = dict(named)
    for key in named:
        stem, _, part = key.rpartition(".")
        if part == "theta" and f"{stem}.r" in named:
            direction = normalize(folded.pop(key).float(), dim=1)
            folded[f"{stem}.weight"] = (folded.pop(f"{stem}.r") * direction).to(named[key].dtype)
    return folded


def _with_one_table(named: Mapping[str, Tensor], kept_rows: int) -> dict[str, Tensor]:
    merged = dict(named)
    for second, first in _SECOND_TABLES.items():
        if second in merged and first in merged:
            rest = merged.pop(second)
            if rest.shape != merged[first].shape:
                raise CheckpointError(
                    f"the two position tables differ: {first} is {tuple(merged[first].shape)}, {second} is "
                    f"{tuple(rest.shape)}. Both hold every row in a Long-CLIP file; this one is damaged."
                )
            merged[first] = torch.cat([merged[first][:kept_rows], rest[kept_rows:]])
    return merged


def _layout_name(named: Mapping[str, Tensor], *, two_tables: bool, gmp: bool) -> str:
    if "token_embedding.weight" in named:
        name = "Long-CLIP, two position tables" if two_tables else "OpenAI / open_clip"
    elif TOKEN_TABLE not in named:
        raise CheckpointError(f"no CLIP text tower in it; {_what_else(named)}")
    elif two_tables:
        name = "longclip-transformers, two position tables"
    else:
        name = "transformers CLIPModel" if "visual_projection.weight" in named else "transformers text encoder"
    return f"{name}, GmP" if gmp else name


def _what_else(named: Mapping[str, Tensor]) -> str:
    """The likely meaning of a file without a text tower."""
    sample = ", ".join(sorted(named)[:3])
    if any(key.startswith(("cond_stage_model.", "conditioner.", "model.diffusion_model.")) for key in named):
        return (
            "it is a whole Stable Diffusion checkpoint. Open it with StableDiffusionLongPipeline.from_single_file; in "
            "ComfyUI put it into models/checkpoints and use a checkpoint loader."
        )
    if any("lora" in key.lower() for key in named):
        return (
            f"it is a LoRA ({sample} ...). Load it onto a pipeline with load_lora_weights, in ComfyUI with Load LoRA."
        )
    if any(key.startswith(VISION_NAMES) for key in named):
        return f"it has an image tower only ({sample} ...). Give the whole CLIP or its text encoder."
    return f"its weights are {sample} ... Give a CLIP or its text encoder."


@cache
def _patterns(side: str) -> list[tuple[re.Pattern[str], Rule]]:
    def pattern(name: str) -> re.Pattern[str]:
        return re.compile(re.escape(name).replace(r"\{n\}", r"(?P<n>\d+)"))

    sides = {"openai": lambda rule: (rule.openai,), "ours": lambda rule: rule.ours}
    return [(pattern(name), rule) for rule in RULES for name in sides[side](rule)]


def _rule_of(side: str, key: str) -> tuple[Rule | None, str | None]:
    for pattern, rule in _patterns(side):
        if match := pattern.fullmatch(key):
            return rule, match.groupdict().get("n")
    return None, None


def _parts(rule: Rule, tensor: Tensor) -> tuple[Tensor, ...]:
    if rule.transposed and tensor.ndim == 2:
        tensor = tensor.T
    return tensor.tensor_split(len(rule.ours)) if len(rule.ours) > 1 else (tensor,)
