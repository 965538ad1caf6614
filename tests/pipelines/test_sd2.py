"""Stable Diffusion 2.x: 1024 wide, padded with "!"; no Long-CLIP exists for it: stretched, or in windows."""

import numpy as np
import pytest
import torch
import toys
from diffusers import StableDiffusionPipeline
from drawing import SENTENCE, draw

from longclip_diffusers import AutoLongPipeline, StableDiffusionLongPipeline
from longclip_diffusers.errors import ModelError
from longclip_diffusers.text_encoder import position_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = toys.tokenizer()
    tokenizer.pad_token = "!"
    width = {"hidden_size": 1024, "intermediate_size": 64, "num_attention_heads": 16, "num_hidden_layers": 2}
    components = toys.stable_diffusion_components(
        tokenizer=tokenizer,
        text_encoder=toys.text_encoder(hidden_act="gelu", projection_dim=512, **width),
        unet=toys.unet(cross_attention_dim=1024),
    )
    made = tmp_path_factory.mktemp("sd2")
    StableDiffusionPipeline(**components).save_pretrained(made)
    return made


def test_auto_says_that_no_long_clip_is_known_and_names_the_choices(folder):
    with pytest.raises(ModelError, match=r'No Long-CLIP of width 1024 is known .*"stretch".*None'):
        AutoLongPipeline.from_pretrained(folder)


def test_as_it_is_the_picture_is_stocks(folder):
    stock, long = (
        StableDiffusionPipeline.from_pretrained(folder),
        AutoLongPipeline.from_pretrained(folder, longclip=None),
    )
    assert type(long) is StableDiffusionLongPipeline
    assert np.array_equal(draw(long, negative_prompt="dark"), draw(stock, negative_prompt="dark"))


def test_stretched_it_reads_what_stock_cuts_off_and_keeps_its_padding(folder):
    pipe = AutoLongPipeline.from_pretrained(folder, longclip="stretch")
    assert not np.array_equal(draw(pipe, SENTENCE * 4 + "red"), draw(pipe, SENTENCE * 4 + "blue"))
    assert position_table(pipe.text_encoder).shape == (248, 1024)
    ids = [[512, *pipe.tokenizer(SENTENCE * 4, add_special_tokens=False).input_ids, 513]]
    ids[0] += [0] * (248 - len(ids[0]))
    with torch.no_grad():
        assert torch.equal(
            pipe.encode_prompt(SENTENCE * 4, "cpu", 1, False)[0], pipe.text_encoder(torch.tensor(ids)).last_hidden_state
        )
