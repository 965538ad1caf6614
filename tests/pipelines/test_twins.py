"""Which classes of diffusers get a long twin, that each of them reads a chapter, and which are refused and why."""

import inspect
import re

import diffusers
import numpy as np
import pytest
import torch
import toys
import toys_dit
import toys_xl
from diffusers import (
    ControlNetXSAdapter,
    DDPMParallelScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    StableDiffusionInstructPix2PixPipeline,
    UNet3DConditionModel,
)
from drawing import CHAPTER, KINDS, SENTENCE, animatediff, draw, frames, gradient, half_mask

from longclip_diffusers import AutoLongPipeline
from longclip_diffusers.errors import LongClipError
from longclip_diffusers.experimental import LongPromptFluxMixin, LongPromptSD3Mixin
from longclip_diffusers.loading import stock_class
from longclip_diffusers.mixin import LongPromptMixin, LongPromptXLMixin
from longclip_diffusers.pipelines.auto import _REFUSED, long_class

pytestmark = [
    pytest.mark.filterwarnings("ignore:The class .* is deprecated:FutureWarning"),  # InpaintPipelineLegacy
    pytest.mark.filterwarnings("ignore:The configuration file of the vae:FutureWarning"),  # Upscale has one of its own
    pytest.mark.filterwarnings("ignore:Of .* tokens T5 reads the first:UserWarning"),  # the toys' T5 reads bytes
    # TextToVideoZero calls them so:
    pytest.mark.filterwarnings("ignore:Default grid_sample:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
]

# All that get a twin. Before a name is added here its code is read for what counts 77 rows; else it goes to _REFUSED.
FAMILIES = {
    LongPromptMixin: """
        AnimateDiffControlNetPipeline AnimateDiffPAGPipeline AnimateDiffPipeline AnimateDiffSparseControlNetPipeline
        AnimateDiffVideoToVideoControlNetPipeline AnimateDiffVideoToVideoPipeline
        LatentConsistencyModelImg2ImgPipeline LatentConsistencyModelPipeline PIAPipeline
        StableDiffusionAdapterPipeline StableDiffusionControlNetImg2ImgPipeline
        StableDiffusionControlNetInpaintPipeline StableDiffusionControlNetPAGInpaintPipeline
        StableDiffusionControlNetPAGPipeline StableDiffusionControlNetPipeline StableDiffusionControlNetXSPipeline
        StableDiffusionDepth2ImgPipeline StableDiffusionGLIGENPipeline StableDiffusionGLIGENTextImagePipeline
        StableDiffusionImg2ImgPipeline StableDiffusionInpaintPipeline StableDiffusionInpaintPipelineLegacy
        StableDiffusionLDM3DPipeline StableDiffusionPAGImg2ImgPipeline StableDiffusionPAGInpaintPipeline
        StableDiffusionPAGPipeline StableDiffusionPanoramaPipeline StableDiffusionParadigmsPipeline
        StableDiffusionPipeline StableDiffusionSAGPipeline StableDiffusionUpscalePipeline StableUnCLIPImg2ImgPipeline
        StableUnCLIPPipeline TextToVideoSDPipeline TextToVideoZeroPipeline VideoToVideoSDPipeline
    """,
    LongPromptXLMixin: """
        AnimateDiffSDXLPipeline StableDiffusionXLAdapterPipeline StableDiffusionXLControlNetImg2ImgPipeline
        StableDiffusionXLControlNetInpaintPipeline StableDiffusionXLControlNetPAGImg2ImgPipeline
        StableDiffusionXLControlNetPAGPipeline StableDiffusionXLControlNetPipeline
        StableDiffusionXLControlNetUnionImg2ImgPipeline StableDiffusionXLControlNetUnionInpaintPipeline
        StableDiffusionXLControlNetUnionPipeline StableDiffusionXLControlNetXSPipeline
        StableDiffusionXLImg2ImgPipeline StableDiffusionXLInpaintPipeline StableDiffusionXLInstructPix2PixPipeline
        StableDiffusionXLPAGImg2ImgPipeline StableDiffusionXLPAGInpaintPipeline StableDiffusionXLPAGPipeline
        StableDiffusionXLPipeline TextToVideoZeroSDXLPipeline
    """,
    LongPromptSD3Mixin: """
        StableDiffusion3ControlNetInpaintingPipeline StableDiffusion3ControlNetPipeline
        StableDiffusion3Img2ImgPipeline StableDiffusion3InpaintPipeline StableDiffusion3PAGImg2ImgPipeline
        StableDiffusion3PAGPipeline StableDiffusion3Pipeline
    """,
    LongPromptFluxMixin: """
        FluxControlImg2ImgPipeline FluxControlInpaintPipeline FluxControlNetImg2ImgPipeline
        FluxControlNetInpaintPipeline FluxControlNetPipeline FluxControlPipeline FluxFillPipeline FluxImg2ImgPipeline
        FluxInpaintPipeline FluxKontextInpaintPipeline FluxKontextPipeline FluxPipeline FluxPriorReduxPipeline
    """,
}
COMPONENTS = {
    LongPromptMixin: toys.stable_diffusion_components,
    LongPromptXLMixin: toys_xl.components,
    LongPromptSD3Mixin: toys_dit.sd3_components,
    LongPromptFluxMixin: toys_dit.flux_components,
}
LISTED = {name: family for family, names in FAMILIES.items() for name in names.split()}


def there(names):
    """Of these, the pipelines that this diffusers has, with all that they need."""
    found = {name: getattr(diffusers, name, None) for name in names}
    return {
        name: each for name, each in found.items() if isinstance(each, type) and issubclass(each, DiffusionPipeline)
    }


HERE = pytest.mark.parametrize(("name", "stock"), there(LISTED).items(), ids=there(LISTED))


def components_for(stock, family, **given):
    """Toys for all that a pipeline must be given and that there are toys of; None for the rest."""
    made = {**COMPONENTS[family](), **given}
    wanted = list(inspect.signature(stock.__init__).parameters.values())[1:]
    return {each.name: made.get(each.name) for each in wanted if each.name in made or each.default is each.empty}


def has_twin(stock):
    try:
        return issubclass(long_class(stock), stock)
    except LongClipError:
        return False


def test_the_classes_with_a_twin_are_those_that_were_read():
    pipelines = there(name for name in dir(diffusers) if "Pipeline" in name)
    assert {name for name, stock in pipelines.items() if has_twin(stock)} == there(LISTED).keys()


@HERE
def test_every_twin_encodes_a_long_text_and_of_a_short_one_stocks_tensors(name, stock):
    family, long = LISTED[name], long_class(stock)
    assert issubclass(long, family)
    assert stock_class(long) is stock
    components = components_for(stock, family, **(with_xs(family) if "ControlNetXS" in name else {}))
    stock, twin = stock(**components), long(**components)
    for ours, theirs in zip(encode(twin, "a cat"), encode(stock, "a cat"), strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)
    if family is LongPromptFluxMixin:  # one vector, of the first window
        twin.load_longclip("stretch")
        red, blue = (encode(twin, SENTENCE * 5 + end)[1] for end in ("red", "blue"))
    else:
        red, blue = (encode(twin, CHAPTER + end)[0] for end in ("red", "blue"))
        assert red.shape[1] > 248
    assert not torch.equal(red, blue)


def encode(pipe, prompt):
    takes = inspect.signature(pipe.encode_prompt).parameters
    call = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    call |= {"prompt_2": None, "prompt_3": None}
    with torch.no_grad():
        return pipe.encode_prompt(prompt, **{key: value for key, value in call.items() if key in takes})


# ---- what nobody would run otherwise: diffusers keeps most of these for their names only


def with_xs(family=LongPromptMixin):
    """A UNet and the ControlNet-XS for it, which wants two layers a block."""
    unet = {LongPromptMixin: toys.unet, LongPromptXLMixin: xl_unet}[family](layers_per_block=2)
    adapter = ControlNetXSAdapter.from_unet(unet, size_ratio=0.5, conditioning_embedding_out_channels=(8, 8, 8, 8))
    return {"unet": unet, "controlnet": adapter.eval()}


def xl_unet(**config):
    return toys.unet(**toys_xl._added(refiner=False), **config)


def unet_3d():
    blocks = {"down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D")}
    blocks |= {"up_block_types": ("CrossAttnUpBlock3D", "UpBlock3D"), "block_out_channels": (16, 32)}
    sizes = {"cross_attention_dim": toys.WIDTH, "attention_head_dim": 4, "norm_num_groups": 8, "layers_per_block": 1}
    return {"unet": toys._seeded(1, lambda: UNet3DConditionModel(sample_size=8, **blocks, **sizes))}


IMAGE = {"image": gradient(), "strength": 1.0}
FILM = {"num_frames": 2}
ZERO = {"video_length": 2, "num_inference_steps": 4, "t0": 1, "t1": 2}
# What each needs beside its family's toys, and beside a prompt.
RARE = {
    "PIAPipeline": (
        lambda: {"motion_adapter": toys.motion_adapter(conv_in_channels=9)},
        {**IMAGE, **FILM, "height": 64, "width": 64},
    ),
    "StableDiffusionControlNetImg2ImgPipeline": (
        lambda: {"controlnet": toys.controlnet()},
        {**IMAGE, "control_image": gradient()},
    ),
    "StableDiffusionControlNetXSPipeline": (with_xs, {"image": gradient()}),
    "StableDiffusionDepth2ImgPipeline": (
        lambda: {"unet": toys.unet(in_channels=5)},
        {**IMAGE, "depth_map": torch.linspace(0, 1, 64 * 64).reshape(1, 64, 64)},
    ),
    "StableDiffusionGLIGENPipeline": (
        lambda: {"unet": toys.unet(attention_type="gated")},
        {"gligen_phrases": ["a cat"], "gligen_boxes": [[0.0, 0.0, 0.5, 0.5]]},
    ),
    "StableDiffusionInpaintPipelineLegacy": (dict, {**IMAGE, "mask_image": half_mask()}),
    "StableDiffusionLDM3DPipeline": (lambda: {"vae": toys.vae(in_channels=6, out_channels=6)}, {}),
    "StableDiffusionPanoramaPipeline": (dict, {}),
    "StableDiffusionParadigmsPipeline": (lambda: {"scheduler": DDPMParallelScheduler()}, {"parallel": 2}),
    "StableDiffusionSAGPipeline": (dict, {}),
    "StableDiffusionUpscalePipeline": (
        lambda: {"unet": toys.unet(in_channels=7, num_class_embeds=1000), "low_res_scheduler": DDPMScheduler()},
        {"image": gradient().resize((16, 16))},
    ),
    "StableDiffusionXLControlNetXSPipeline": (lambda: with_xs(LongPromptXLMixin), {"image": gradient()}),
    "TextToVideoSDPipeline": (unet_3d, FILM),
    "TextToVideoZeroPipeline": (dict, ZERO),
    "TextToVideoZeroSDXLPipeline": (dict, ZERO),
    "VideoToVideoSDPipeline": (unet_3d, {"video": [np.asarray(gradient())] * 2, "strength": 1.0}),
}


@pytest.mark.parametrize("name", there(RARE))
def test_rare_twins_draw_a_chapter(name):
    replaced, arguments = RARE[name]
    stock = there(RARE)[name]
    pipe = stock(**components_for(stock, LISTED[name], **replaced()))
    twin = AutoLongPipeline.from_pipe(pipe)
    assert np.array_equal(shown(twin, "a cat", arguments), shown(pipe, "a cat", arguments))
    red, blue = (shown(twin, CHAPTER + end, arguments) for end in ("red", "blue"))
    assert np.abs(red - blue).max() > 1e-3  # float noise between equal prompts is exactly zero


def shown(pipe, prompt, arguments):
    """Pictures, or frames, of two steps where `arguments` names no other number."""
    pipe.set_progress_bar_config(disable=True)
    size = {"height": 64, "width": 64} if not {"image", "video"} & arguments.keys() else {}
    settings = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), "output_type": "np", **size}
    output = pipe(prompt=prompt, **{**settings, **arguments})
    return np.asarray(output[0])


# ---- refused


@pytest.mark.parametrize(("name", "stock"), there(_REFUSED).items(), ids=there(_REFUSED))
def test_what_cannot_read_more_than_77_rows_is_refused(name, stock):
    with pytest.raises(LongClipError, match=f"^{name} has no long twin: {re.escape(_REFUSED[name])}. Use it as it is"):
        long_class(stock)
    with pytest.raises(LongClipError, match=f"^Ours has no long twin: {re.escape(_REFUSED[name])}"):
        long_class(type("Ours", (stock,), {}))


def test_cycle_diffusion_would_join_what_is_unequal():
    stock = diffusers.CycleDiffusionPipeline
    twin = type("Twin", (LongPromptMixin, stock), {})(**components_for(stock, LongPromptMixin))
    twin.set_progress_bar_config(disable=True)
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        twin(CHAPTER, source_prompt="a dog", image=gradient(), strength=1.0, eta=0.1, num_inference_steps=2)


def test_instruct_pix2pix_takes_the_embeddings_of_a_long_pipeline():
    kind = KINDS["text2img"]
    stock = StableDiffusionInstructPix2PixPipeline(**kind.components(unet=toys.unet(in_channels=8)))
    with pytest.raises(LongClipError, match=r"InstructPix2PixPipeline has no long twin.*prompt_embeds.*encode_prompt"):
        AutoLongPipeline.from_pipe(stock)
    long, pictures = kind.long(**kind.components()), {}
    for prompt in ("a cat", CHAPTER + "red", CHAPTER + "blue"):
        positive, negative = encode(long, prompt)
        given = {"prompt_embeds": positive, "negative_prompt_embeds": negative, "image": gradient()}
        pictures[prompt] = draw(stock, None, **given)
    assert np.array_equal(pictures["a cat"], draw(stock, "a cat", image=gradient()))
    assert np.abs(pictures[CHAPTER + "red"] - pictures[CHAPTER + "blue"]).max() > 1e-3


def test_free_noise_takes_short_texts_and_refuses_longer_ones():
    pipe = AutoLongPipeline.from_pipe(animatediff())
    pipe.enable_free_noise(context_length=2, context_stride=2)
    assert frames(pipe, "a cat", negative_prompt="dark").shape == (1, 2, 64, 64, 3)
    for prompts in ({"prompt": CHAPTER}, {"prompt": "a cat", "negative_prompt": CHAPTER}):
        with pytest.raises(LongClipError, match=r"FreeNoise reads .* or disable_free_noise\(\)"):
            frames(pipe, **prompts)
    pipe.disable_free_noise()
    frames(pipe, CHAPTER)
