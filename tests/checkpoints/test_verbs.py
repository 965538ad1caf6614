"""`longclip inspect` and `longclip convert` as tyro reads them."""

from pathlib import Path

import checkpoint_makers as makers
import pytest
import torch
import tyro

from longclip_diffusers.checkpoints import load_text_encoder
from longclip_diffusers.cli.convert import convert
from longclip_diffusers.cli.exits import UsageError
from longclip_diffusers.cli.inspect import inspect
from longclip_diffusers.text_encoder import num_positions


def test_inspect_prints_the_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(makers.longclip_state(), tmp_path / "a.pt")
    tyro.cli(inspect, args=[str(tmp_path), "--weight-name", "a.pt"])
    output = capsys.readouterr().out
    assert "248 rows, trained" in output
    assert "Long-CLIP, two position tables" in output


def test_convert_writes_and_prints_where(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(makers.openai_state(), tmp_path / "a.pt")
    out = tmp_path / "out"
    tyro.cli(convert, args=[str(tmp_path / "a.pt"), str(out), "--to", "diffusers", "--stretch", "--hidden-act", "gelu"])
    assert capsys.readouterr().out.strip().endswith(str(out))
    with pytest.warns(UserWarning, match="untrained interpolation"):
        encoder = load_text_encoder(out)
    assert (num_positions(encoder), encoder.config.hidden_act) == (248, "gelu")
    tyro.cli(convert, args=[str(tmp_path / "a.pt"), str(out), "--overwrite"])
    assert num_positions(load_text_encoder(out)) == 77
    with pytest.raises(UsageError, match=r"--to hf writes a folder, and b\.safetensors .* give --to safetensors"):
        tyro.cli(convert, args=[str(tmp_path / "a.pt"), "b.safetensors"])


@pytest.mark.parametrize(("verb", "words"), [(inspect, ["SOURCE"]), (convert, ["SOURCE", "OUT", "--to", "diffusers"])])
def test_help_names_the_arguments(verb, words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        tyro.cli(verb, args=["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out.upper()
    assert all(word.upper() in text for word in words)
