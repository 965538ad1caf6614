"""What ComfyUI shows: each node's inputs, outputs and help. The work is done in the modules beside this one.

Ids, input names, and the order and types of outputs are kept for ever: saved workflows refer to them. New inputs are
optional and come last.
"""

from typing import Any, ClassVar

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

CATEGORY = "Long-CLIP"
NO_SECOND_FILE = "none"
CLIP_INPUT = ("CLIP", {"tooltip": "The CLIP of a checkpoint or of a CLIP loader; it stays as it is."})
TEXT_INPUT = (
    "STRING",
    {
        "multiline": True,
        "dynamicPrompts": True,
        "tooltip": "A text of any length. (word:1.2) and embedding:name work as everywhere in ComfyUI.",
    },
)
SPLIT_INPUT = (
    ["sentence", "paragraph", "token"],
    {
        "default": "sentence",
        "tooltip": "Where a text longer than one window is cut. sentence: at the last sentence end that fits, and the "
        "word BREAK starts a new window. paragraph: at the last empty line that fits, else at a sentence end. token: "
        "wherever the window is full, exactly as CLIP Text Encode does it.",
    },
)
WINDOWS_TOOLTIP = "How many times the text encoder reads: the number of windows."
REPORT_TOOLTIP = "The windows, one a line. Plug it into Preview as Text."


class LongClipStretch:
    """Core's CLIP -> a CLIP with longer position tables."""

    DESCRIPTION = (
        "Stretches the position table of any CLIP from 77 to 248 tokens or more (knowledge-preserved stretching, as "
        "Long-CLIP does it): prompts of up to 18 tokens are read exactly as before, longer ones as one text and not "
        "in pieces. The new positions are not trained; there is a trained Long-CLIP for SD 1.x (Load Long-CLIP), and "
        "none for the G of SDXL or the H of SD 2.x. For SDXL stretch all encoders. Use it before or after LoRA loaders."
    )
    SEARCH_ALIASES: ClassVar = ["long clip", "77 tokens", "248 tokens", "token limit"]
    CATEGORY = CATEGORY
    FUNCTION = "stretch"
    RETURN_TYPES = ("CLIP", "STRING")
    RETURN_NAMES = ("clip", "report")
    OUTPUT_TOOLTIPS = ("The stretched CLIP.", "What was stretched, for example: L 77 -> 248, G 77 -> 248.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's declaration of the inputs."""
        return {
            "required": {
                "clip": CLIP_INPUT,
                "max_tokens": (
                    "INT",
                    {
                        "default": 248,
                        "min": 77,
                        "max": 1024,
                        "tooltip": "Tokens the CLIP reads at once, start and end included. 248 is Long-CLIP's length.",
                    },
                ),
                "keep": (
                    "INT",
                    {
                        "default": 20,
                        "min": 1,
                        "max": 76,
                        "tooltip": "First positions that stay as they are; Long-CLIP keeps 20.",
                    },
                ),
                "encoders": (
                    ["all", "l", "g", "h"],
                    {
                        "default": "all",
                        "tooltip": "L is in SD 1.x, SDXL, SD3 and Flux, G in SDXL and SD3, H in SD 2.x.",
                    },
                ),
            }
        }

    def stretch(self, clip: Any, max_tokens: int, keep: int, encoders: str) -> tuple[Any, str]:
        """(CLIP, report)."""
        from .stretching import stretch_clip

        return stretch_clip(clip, max_tokens=max_tokens, keep=keep, encoders=encoders)


class LongClipLoader:
    """Files of any CLIP or Long-CLIP -> a CLIP."""

    DESCRIPTION = (
        "Loads a Long-CLIP (or any CLIP) from models/text_encoders: the original longclip-L.pt with both of its "
        "position tables (core's CLIP loader drops the trained one), safetensors of any length, whole CLIP models "
        "(the image tower is left out).\n\nsd15: longclip-L. sd2: CLIP-H. sdxl: L and G. sd3: L and G, or one of them "
        "and T5. flux: L and T5."
    )
    SEARCH_ALIASES: ClassVar = ["long clip", "longclip-L.pt", "clip loader"]
    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("CLIP", "STRING")
    RETURN_NAMES = ("clip", "report")
    OUTPUT_TOOLTIPS = (
        "Encode prompts with it, plug LoRA loaders behind it.",
        "What was in the files, and how many tokens each encoder reads.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's declaration of the inputs."""
        import folder_paths

        files = folder_paths.get_filename_list("text_encoders")
        return {
            "required": {
                "clip_name": (files, {"tooltip": "A file in models/text_encoders (or models/clip)."}),
                "type": (
                    ["sd15", "sd2", "sdxl", "sd3", "flux"],
                    {"default": "sd15", "tooltip": "The kind of model that the CLIP is for."},
                ),
            },
            "optional": {
                "clip_name2": (
                    [NO_SECOND_FILE, *files],
                    {
                        "default": NO_SECOND_FILE,
                        "tooltip": "The second encoder of SDXL, SD3 or Flux; the order is free.",
                    },
                ),
                "device": (
                    ["default", "cpu"],
                    {"default": "default", "advanced": True, "tooltip": "cpu keeps it out of the graphics memory."},
                ),
            },
        }

    def load(
        self, clip_name: str, type: str, clip_name2: str = NO_SECOND_FILE, device: str = "default"
    ) -> tuple[Any, str]:
        """(CLIP, report)."""
        from .loading import load_clip_files

        names = [name for name in (clip_name, clip_name2) if name != NO_SECOND_FILE]
        return load_clip_files(names, kind=type, on_cpu=device == "cpu")


class LongClipTextEncode:
    """CLIP and text -> conditioning in windows of whole sentences."""

    DESCRIPTION = (
        "Encodes a text of any length, a chapter too, in windows of whole sentences. Works with every CLIP of SD 1.x, "
        "2.x, SDXL, SD3 and Flux, stretched or not. The word BREAK starts a new window; text in (round brackets) stays "
        "together where it fits. Use the same node for the negative prompt, or Match Conditioning Lengths."
    )
    SEARCH_ALIASES: ClassVar = ["long prompt", "chapter", "77 tokens", "BREAK", "text encode"]
    CATEGORY = CATEGORY
    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING", "INT", "STRING")
    RETURN_NAMES = ("conditioning", "windows", "report")
    OUTPUT_TOOLTIPS = ("For a KSampler's positive or negative.", WINDOWS_TOOLTIP, REPORT_TOOLTIP)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's declaration of the inputs."""
        return {
            "required": {"clip": CLIP_INPUT, "text": TEXT_INPUT, "split": SPLIT_INPUT},
            "optional": {
                "context": (
                    ["none", "related"],
                    {
                        "default": "none",
                        "tooltip": "related: each later sentence is read behind the earlier ones it refers to (found "
                        "by the rare words they share), whose own rows are then left out. For chapters with a CLIP "
                        "of 77 tokens; SD 1.x, 2.x and SDXL.",
                    },
                ),
                "min_windows": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 64,
                        "tooltip": "Fill up with empty windows to at least so many, so that two prompts are of one "
                        "length.",
                    },
                ),
                "pooled": (
                    ["first", "mean", "last"],
                    {
                        "default": "first",
                        "tooltip": "Which window's summary vector the model gets (SDXL, SD3, Flux read one). first is "
                        "what ComfyUI does.",
                    },
                ),
            },
        }

    def encode(
        self,
        clip: Any,
        text: str,
        split: str,
        context: str = "none",
        min_windows: int = 1,
        pooled: str = "first",
    ) -> tuple[list[Any], int, str]:
        """(conditioning, number of windows, report)."""
        from .encoding import encode_prompt

        conditioning, plan = encode_prompt(
            clip, text, split=split, context=context, min_windows=min_windows, pooled=pooled
        )
        return conditioning, len(plan.windows), str(plan)


class LongClipTokenCount:
    """CLIP and text -> numbers and the windows' texts."""

    DESCRIPTION = (
        "Counts a prompt's tokens (start, end and padding left out; SDXL's two encoders are not added up) and shows "
        "how Encode Long Text cuts it into windows. Works with every CLIP of SD 1.x, 2.x, SDXL, SD3 and Flux."
    )
    SEARCH_ALIASES: ClassVar = ["token counter", "prompt length", "77 tokens"]
    CATEGORY = CATEGORY
    FUNCTION = "count"
    OUTPUT_NODE = True
    RETURN_TYPES = ("INT", "INT", "STRING")
    RETURN_NAMES = ("tokens", "windows", "report")
    OUTPUT_TOOLTIPS = ("Tokens of the text itself.", WINDOWS_TOOLTIP, REPORT_TOOLTIP)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's declaration of the inputs."""
        return {"required": {"clip": CLIP_INPUT, "text": TEXT_INPUT, "split": SPLIT_INPUT}}

    def count(self, clip: Any, text: str, split: str) -> dict[str, Any]:
        """{ui, result: (tokens, windows, report)}."""
        from .prompts import plan_prompt

        plan = plan_prompt(clip, text, split=split)
        report = str(plan)
        return {"ui": {"text": [report]}, "result": (plan.num_tokens, len(plan.windows), report)}


class LongClipMatch:
    """Two conditionings -> the same, equally long."""

    DESCRIPTION = (
        "Brings positive and negative to one length by adding empty windows to the shorter one, so that both run in "
        "one pass of the model: up to twice as fast where a long prompt meets a short negative."
    )
    SEARCH_ALIASES: ClassVar = ["pad conditioning", "negative prompt length"]
    CATEGORY = CATEGORY
    FUNCTION = "match"
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    OUTPUT_TOOLTIPS = ("The positive, at the longer one's length.", "The negative, at the longer one's length.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's declaration of the inputs."""
        conditioning = ("CONDITIONING", {"tooltip": "From a text encode node; it stays as it is."})
        clip = ("CLIP", {"tooltip": "The CLIP that encoded both: it encodes the empty windows."})
        return {"required": {"positive": conditioning, "negative": conditioning, "clip": clip}}

    def match(self, positive: list[Any], negative: list[Any], clip: Any) -> tuple[list[Any], list[Any]]:
        """(positive, negative)."""
        from .encoding import match_lengths

        return match_lengths(positive, negative, clip)


class LongClipCheckpointLoader:
    """A checkpoint that was saved with a long CLIP -> model, CLIP, VAE."""

    DESCRIPTION = (
        "Loads a checkpoint that was saved with a long CLIP inside, which Load Checkpoint refuses with a size "
        "mismatch. Any other checkpoint loads as there."
    )
    SEARCH_ALIASES: ClassVar = ["load checkpoint", "size mismatch position_embedding"]
    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    RETURN_NAMES = ("model", "clip", "vae")
    OUTPUT_TOOLTIPS = ("For a KSampler.", "As long as it was saved.", "Between pixels and latents.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's declaration of the inputs."""
        import folder_paths

        files = folder_paths.get_filename_list("checkpoints")
        return {"required": {"ckpt_name": (files, {"tooltip": "A file in models/checkpoints."})}}

    def load(self, ckpt_name: str) -> tuple[Any, Any, Any]:
        """(model, CLIP, VAE)."""
        from .loading import load_checkpoint_file

        return load_checkpoint_file(ckpt_name)


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        LongClipStretch,
        LongClipLoader,
        LongClipTextEncode,
        LongClipTokenCount,
        LongClipMatch,
        LongClipCheckpointLoader,
    )
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LongClipStretch": "Stretch CLIP to Long-CLIP",
    "LongClipLoader": "Load Long-CLIP",
    "LongClipTextEncode": "Encode Long Text",
    "LongClipTokenCount": "Count Prompt Tokens",
    "LongClipMatch": "Match Conditioning Lengths",
    "LongClipCheckpointLoader": "Load Checkpoint, Long-CLIP inside",
}
