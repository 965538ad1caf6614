"""FLOPs counted on shapes are those of the step itself."""

import pytest
import torch
import toys
from torch.utils.flop_counter import FlopCounterMode

from longclip_diffusers.training.contrastive import ContrastiveBatch, contrastive_backward
from longclip_diffusers.training.flops import step_flops
from longclip_diffusers.training.recipe import Recipe

RECIPE = Recipe(base="toy", batch_size=12, components=4)


@pytest.mark.parametrize("micro_batch", [5, 12], ids=["cached", "one graph"])
@pytest.mark.parametrize("frozen", [False, True], ids=["both towers", "frozen vision"])
def test_equals_what_the_step_does(micro_batch, frozen):
    clip = toys.clip(40)
    clip.set_attn_implementation("eager")  # the counter does not know the CPU's fused attention
    clip.vision_model.requires_grad_(not frozen)
    clip.visual_projection.requires_grad_(not frozen)
    generator = torch.Generator().manual_seed(0)
    longs, shorts = (
        [[512, *[7] * (length - 2), 513] for length in torch.randint(*limits, (12,), generator=generator).tolist()]
        for limits in ((10, 40), (3, 9))
    )
    batch = ContrastiveBatch(torch.randn(12, 3, 32, 32, generator=generator), longs, shorts)
    with FlopCounterMode(display=False) as counter:
        contrastive_backward(clip, batch, RECIPE, micro_batch=micro_batch)
    counted = step_flops(
        clip,
        [len(row) for row in longs],
        [len(row) for row in shorts],
        micro_batch=micro_batch,
        replay=micro_batch < 12,
        device=clip.device,
    )
    # The losses are the rest; here the towers are so small that they are seen at all.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert counted < counter.get_total_flops()
