"""The public names and the module each lives in; `__init__` imports them on first use."""

PUBLIC: dict[str, str] = {
    "AutoLongPipeline": "pipelines",
    "Conditioning": "conditioning",
    "LongClipError": "errors",
    "StableDiffusionLongControlNetPipeline": "pipelines",
    "StableDiffusionLongImg2ImgPipeline": "pipelines",
    "StableDiffusionLongInpaintPipeline": "pipelines",
    "StableDiffusionLongPipeline": "pipelines",
    "WindowPlan": "windows",
    "bundled": "models",
    "clip_benchmark_model": "evaluation.clip_benchmark",
    "encode_long_prompt": "conditioning",
    "linear_positions": "positions",
    "load_clip": "checkpoints",
    "load_text_encoder": "checkpoints",
    "load_tokenizer": "tokenizer",
    "plan_windows": "windows",
    "stretch_positions": "positions",
    "stretch_text_encoder": "text_encoder",
}
