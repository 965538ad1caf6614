"""A node for the tests: writes a conditioning into the output folder, so that it can be compared outside."""

from pathlib import Path

import folder_paths
from safetensors.torch import save_file


class LongClipTestProbe:
    """CONDITIONING -> NAME.safetensors: rows and pooled vector of the first entry, the number of entries."""

    CATEGORY = "Long-CLIP tests"
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "name": ("STRING", {})}}

    def save(self, conditioning, name):
        states, extra = conditioning[0]
        tensors = {"rows": states.contiguous(), "pooled": extra["pooled_output"].contiguous()}
        save_file(tensors, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")
        return {}


NODE_CLASS_MAPPINGS = {"LongClipTestProbe": LongClipTestProbe}
