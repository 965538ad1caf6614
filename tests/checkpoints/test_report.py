"""What `longclip inspect` says of a checkpoint."""

from pathlib import Path

import checkpoint_makers as makers
import torch

from longclip_diffusers.checkpoints import inspect_checkpoint
from longclip_diffusers.checkpoints.files import sha256_of
from longclip_diffusers.positions import stretch_positions


def test_a_long_clip(tmp_path: Path) -> None:
    path = tmp_path / "longclip-B.pt"
    torch.save(makers.longclip_state(), path)
    report = inspect_checkpoint(path)
    assert report.layout == "Long-CLIP, two position tables"
    assert report.text_tower == "width 64, 2 layers, 1 heads, quick_gelu, projection 48, vocabulary 96"
    assert report.vision_tower == "width 64, 2 layers, 1 heads, quick_gelu, patch 4, image 12"
    assert (report.position_rows, report.positions) == (248, "trained")
    assert report.sha256 == {str(path): sha256_of(path)}
    text = str(report)
    for fact in (report.layout, report.text_tower, "248 rows, trained", "float32 (", sha256_of(path)):
        assert fact in text


def test_stock_and_interpolated_tables(tmp_path: Path) -> None:
    state = makers.text_only(makers.transformers_state(makers.openai_state(dtype=torch.float16)))
    report = inspect_checkpoint(makers.folder(tmp_path / "stock", state))
    assert (report.position_rows, report.positions, report.vision_tower) == (77, "stock", "none")
    assert report.dtypes == {"float16": len(state)}

    name = "text_model.embeddings.position_embedding.weight"
    state[name] = stretch_positions(state[name])
    report = inspect_checkpoint(makers.folder(tmp_path / "long", state))  # no warning: the report says it
    assert (report.position_rows, report.positions) == (248, "interpolated")
    assert "248 rows, untrained interpolation" in str(report)


def test_what_loading_would_refuse_is_reported(tmp_path: Path) -> None:
    state = makers.openai_state()
    state["ln_final.bias"] = state["ln_final.bias"] / 0
    state["extra"] = torch.ones(1)
    state["visual.proj"] = state["visual.proj"].half()
    torch.save(state, tmp_path / "a.pt")
    report = inspect_checkpoint(tmp_path / "a.pt")
    assert report.unusable == ("text_model.final_layer_norm.bias",)
    assert report.unknown == ("extra",)
    assert report.dtypes["float16"] == 1
    assert "NaN or inf    text_model.final_layer_norm.bias" in str(report)
