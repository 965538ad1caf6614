"""`longclip_config.json`: what is written is read back, and what is not known is refused."""

import json

import pytest

from longclip_diffusers.errors import CheckpointError
from longclip_diffusers.sidecar import (
    SIDECAR,
    PromptOptions,
    format_sidecar,
    named_encoder,
    parse_sidecar,
    read_sidecar,
)


@pytest.mark.parametrize("longclip", [None, "longclip", "owner/name", "/some/where"])
@pytest.mark.parametrize("options", [PromptOptions(), PromptOptions(window=154, context="related")])
def test_round_trip(options, longclip):
    assert parse_sidecar(format_sidecar(options, longclip=longclip)) == (longclip, options)


def test_keys_are_those_of_the_design():
    assert sorted(json.loads(format_sidecar(PromptOptions()))) == ["context", "longclip", "syntax", "window"]


def test_absent_keys_are_the_defaults():
    assert parse_sidecar("{}") == ("auto", PromptOptions())
    assert parse_sidecar('{"longclip": "longclip"}') == ("longclip", PromptOptions())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "not a JSON object"),
        ('{"windw": 77, "contxt": "none"}', "unknown 'contxt', 'windw'. Known keys: longclip, window"),
        ('{"longclip": 3}', "'longclip' is 3"),
        ('{"longclip": ""}', "'longclip' is ''"),
        ('{"window": "77"}', "window='77'"),
        ('{"context": "far"}', "context='far': expected one of 'auto', 'none', 'related'"),
        ('{"syntax": null}', "syntax=None"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(text, message):
    with pytest.raises(CheckpointError, match=r"model/longclip_config\.json") as caught:
        parse_sidecar(text, name="model/longclip_config.json")
    assert message in str(caught.value)


def test_folder_without_a_sidecar_has_the_defaults(tmp_path):
    assert read_sidecar(tmp_path) == ("auto", PromptOptions())


def test_folders_sidecar_is_read(tmp_path):
    (tmp_path / SIDECAR).write_text(format_sidecar(PromptOptions(window=100), longclip="long"), encoding="utf-8")
    assert read_sidecar(tmp_path) == ("long", PromptOptions(window=100))


def test_model_that_is_not_in_the_hubs_cache_has_the_defaults(tmp_path):
    assert read_sidecar("owner/name", cache_dir=tmp_path, local_files_only=True) == ("auto", PromptOptions())


def test_hub_models_sidecar_is_read_from_the_cache(tmp_path):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40, encoding="utf-8")
    (snapshot / SIDECAR).write_text('{"window": 77}', encoding="utf-8")
    found = read_sidecar("owner/name", cache_dir=tmp_path, local_files_only=True)
    assert found == ("auto", PromptOptions(window=77))


def test_named_encoder_inside_the_folder_elsewhere_and_on_the_hub(tmp_path):
    (tmp_path / "longclip").mkdir()
    hub = {"revision": "v1", "token": "t"}
    assert named_encoder(tmp_path, "longclip", **hub) == (tmp_path / "longclip", {"token": "t"})
    assert named_encoder(tmp_path, "owner/long", **hub) == ("owner/long", {"token": "t"})
    assert named_encoder("owner/name", "owner/long", **hub) == ("owner/long", {"token": "t"})
    inside = {**hub, "subfolder": "longclip/text_encoder"}
    assert named_encoder("owner/name", "longclip", **hub) == ("owner/name", inside)
