"""The nodes in a real ComfyUI. Opt-in: see CONTRIBUTING.md, or

    LONGCLIP_COMFYUI=/path/to/ComfyUI LONGCLIP_COMFYUI_PYTHON=/path/to/its/python pytest -n 0 tests/comfyui

Needs no GPU, 8 GiB of memory, 4 GiB of disk (random model files, removed afterwards) and some minutes. ComfyUI's own
folders stay as they are: the server gets a base directory of its own.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from comfyui_host import FOLDER, REPOSITORY, Graph, api_format, make_models, running
from safetensors.torch import load_file
from torch.testing import assert_close

pytestmark = pytest.mark.skipif(FOLDER not in os.environ, reason=f"{FOLDER} names no ComfyUI folder")

STORY = (
    "A castle stands on a hill above the harbour. Its gate is blue, and two guards sleep beside it. "
    "A road winds down to the mill; the miller, white with flour, counts his sacks. "
    "Far out a ship with torn sails waits for the wind. The lamp in the highest window is green. "
)
WEIGHTED = "A (castle:1.4) on a hill, embedding:cat beside (the ((blue)) gate), \\(not\\) far from here. " * 9
SIZES = {"width": 64, "height": 64, "batch_size": 1}
SAMPLING = {"seed": 1, "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
NODES = {
    "LongClipStretch",
    "LongClipLoader",
    "LongClipTextEncode",
    "LongClipTokenCount",
    "LongClipMatch",
    "LongClipCheckpointLoader",
}


@pytest.fixture(scope="module")
def host():
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "base") as host:
        host.empty = host.get("/object_info")
        models = host.base / "models"
        models.mkdir(exist_ok=True)
        make_models(models)
        yield host


def stock_clip(graph):
    return graph.add("CLIPLoader", clip_name="l.safetensors", type="stable_diffusion", device="default")


def text_of(outputs, node):
    return outputs[node.key]["text"][0]


def test_nodes_are_there_before_any_model_is(host):
    assert {name for name in host.empty if name.startswith("LongClip")} - {"LongClipTestProbe"} == NODES
    assert host.empty["LongClipLoader"]["input"]["required"]["clip_name"][0] == []
    assert all(host.empty[name]["category"] == "Long-CLIP" and host.empty[name]["description"] for name in NODES)


def test_the_pack_is_imported_without_diffusers_and_without_a_word(host):
    log = host.log.read_text()
    assert "my-nodes" in log
    assert "IMPORT FAILED" not in log.partition("my-nodes")[0].splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "text"),
    [("short", "a castle"), ("empty", ""), ("weighted", WEIGHTED), ("two thousand words", STORY * 38)],
)
def test_token_split_is_core_s_encoding_bit_for_bit(host, name, text):
    graph = Graph()
    clip = stock_clip(graph)
    graph.probe(graph.add("CLIPTextEncode", clip=clip, text=text), "core")
    graph.probe(graph.add("LongClipTextEncode", clip=clip, text=text, split="token"), "ours")
    host.run(graph)
    core, ours = host.probed("core"), host.probed("ours")
    assert core["rows"].isfinite().all()
    assert torch.equal(core["rows"], ours["rows"])
    assert torch.equal(core["pooled"], ours["pooled"])


def test_windows_are_core_s_encodings_of_their_texts(host):
    texts = [STORY + "A castle stands on a hill above the harbour.", STORY.partition(". ")[2], "A (red:1.3) door."]
    graph = Graph()
    clip = stock_clip(graph)
    for number, text in enumerate(texts):
        graph.probe(graph.add("CLIPTextEncode", clip=clip, text=text), f"core {number}")
    encoded = graph.add("LongClipTextEncode", clip=clip, text=f"{STORY * 2}BREAK {texts[-1]}", split="sentence")
    graph.probe(encoded, "ours")
    report = graph.add("PreviewAny", source=encoded[2])
    lines = text_of(host.run(graph), report).splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["window 1", "window 2", "window 3"]
    assert "cut at a sentence end" in lines[1]
    ours = host.rows("ours").split(77, dim=1)
    for number, rows in enumerate(ours):  # another batch size, other last bits
        assert_close(rows, host.rows(f"core {number}"), atol=1e-4, rtol=1e-4)


def test_every_word_is_kept_and_counted(host):
    graph = Graph()
    clip = stock_clip(graph)
    count = graph.add("LongClipTokenCount", clip=clip, text=STORY * 3, split="sentence")
    tokens = graph.add("PreviewAny", source=count[0])
    core = graph.add("LongClipTokenCount", clip=clip, text=STORY * 3, split="token")
    outputs = host.run(graph)
    assert int(text_of(outputs, tokens)) == int(text_of(outputs, core).split()[0])
    assert text_of(outputs, count).startswith(text_of(outputs, tokens))


def test_both_tables_of_the_original_file_are_read(host):
    graph = Graph()
    ours = graph.add("LongClipLoader", clip_name="longclip-L.pt", type="sd15")
    true = graph.add("CLIPLoader", clip_name="l-248-one-table.safetensors", type="stable_diffusion", device="default")
    core = graph.add("CLIPLoader", clip_name="longclip-L.pt", type="stable_diffusion", device="default")
    for name, clip in (("ours", ours), ("true", true), ("core", core)):
        graph.probe(graph.add("CLIPTextEncode", clip=clip, text=STORY), name)
    report = graph.add("PreviewAny", source=ours[1])
    assert "248 tokens, Long-CLIP, two position tables" in text_of(host.run(graph), report)
    assert torch.equal(host.rows("ours"), host.rows("true"))
    assert host.rows("ours").shape == (1, 248, 768)
    assert torch.equal(host.rows("core")[:, :20], host.rows("true")[:, :20])
    assert not torch.allclose(host.rows("core")[:, 20:], host.rows("true")[:, 20:], atol=0.1)  # what the node is for


def test_an_h_of_248_rows_loads(host):
    graph = Graph()
    clip = graph.add("LongClipLoader", clip_name="h-248.safetensors", type="sd2")
    graph.probe(graph.add("LongClipTextEncode", clip=clip, text=STORY, split="sentence"), "h")
    host.run(graph)
    assert host.rows("h").shape == (1, 248, 1024)
    assert host.rows("h").isfinite().all()


def stretched(graph, clip, max_tokens=248):
    return graph.add("LongClipStretch", clip=clip, max_tokens=max_tokens, keep=20, encoders="all")


def test_stretching_leaves_the_input_and_the_first_positions_as_they_were(host):
    graph = Graph()
    clip = stock_clip(graph)
    graph.probe(graph.add("CLIPTextEncode", clip=clip, text="a castle"), "before")
    graph.probe(graph.add("CLIPTextEncode", clip=stretched(graph, clip), text="a castle"), "long")
    graph.probe(graph.add("LongClipTextEncode", clip=clip, text="a castle", split="token"), "after")
    host.run(graph)
    assert torch.equal(host.rows("before"), host.rows("after"))
    assert host.rows("long").shape == (1, 248, 768)
    assert_close(host.rows("long")[:, :20], host.rows("before")[:, :20], atol=1e-5, rtol=1e-5)
    assert_close(host.probed("long")["pooled"], host.probed("before")["pooled"], atol=1e-5, rtol=1e-5)


def test_stretching_again_starts_from_the_original(host):
    reports = []
    for max_tokens in (248, 400, 300):  # each while the one before is loaded
        graph = Graph()
        once = stretched(graph, stock_clip(graph), max_tokens)
        graph.probe(graph.add("CLIPTextEncode", clip=once, text="a castle"), str(max_tokens))
        twice = stretched(graph, once, 300)
        graph.probe(graph.add("CLIPTextEncode", clip=twice, text="a castle"), "again")
        reports.append(graph.add("PreviewAny", source=twice[1]))
        assert text_of(host.run(graph), reports[-1]) == "L 77 -> 300"
    assert [host.rows(name).shape[1] for name in ("248", "400", "300")] == [248, 400, 300]
    assert torch.equal(host.rows("again"), host.rows("300"))


def with_lora(graph, clip):
    strengths = {"strength_model": 0.0, "strength_clip": 1.0}
    model = graph.add("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    return graph.add("LoraLoader", model=model, clip=clip, lora_name="lora.safetensors", **strengths)[1]


def with_skip(graph, clip):
    return graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-3)


@pytest.mark.parametrize("change", [with_lora, with_skip])
def test_lora_and_clip_skip_work_before_and_after(host, change):
    graph = Graph()
    clip = stock_clip(graph)
    clips = {
        "plain": stretched(graph, clip),
        "before": stretched(graph, change(graph, clip)),
        "after": change(graph, stretched(graph, clip)),
    }
    for name, made in clips.items():
        graph.probe(graph.add("LongClipTextEncode", clip=made, text=WEIGHTED, split="sentence"), name)
    host.run(graph)
    assert torch.equal(host.rows("before"), host.rows("after"))
    assert not torch.allclose(host.rows("before"), host.rows("plain"), atol=0.1)


def test_merged_clips_are_stretched_as_they_are(host):
    graph = Graph()
    clip = stock_clip(graph)
    same = graph.add("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")[1]
    merged = graph.add("CLIPMergeSimple", clip1=clip, clip2=same, ratio=0.5)
    for name, made in (("one", clip), ("merged", merged)):
        graph.probe(graph.add("CLIPTextEncode", clip=stretched(graph, made), text=STORY), name)
    host.run(graph)
    assert_close(host.rows("merged"), host.rows("one"), atol=2e-2, rtol=1e-2)  # weights are rounded to fp16


def test_sdxl_s_towers_share_their_windows_and_lose_nothing(host):
    text = STORY * 4
    graph = Graph()
    clip = graph.add("LongClipLoader", clip_name="g.safetensors", type="sdxl", clip_name2="l.safetensors")
    both = stretched(graph, clip)
    only_l = graph.add("LongClipStretch", clip=clip, max_tokens=248, keep=20, encoders="l")
    encoded = graph.add("LongClipTextEncode", clip=both, text=text, split="sentence")
    graph.probe(encoded, "xl")
    reports = [graph.add("PreviewAny", source=node) for node in (both[1], only_l[1], encoded[2])]
    other = text.removesuffix("green. ") + "violet. "
    graph.probe(graph.add("LongClipTextEncode", clip=both, text=other, split="sentence"), "other")
    outputs = host.run(graph)
    assert text_of(outputs, reports[0]) == "L 77 -> 248, G 77 -> 248"
    assert "differ in length (L 248, G 77)" in text_of(outputs, reports[1])
    windows = text_of(outputs, reports[2]).count("window ") - 1
    assert windows >= 2
    assert host.rows("xl").shape == (1, 248 * windows, 2048)
    assert host.probed("xl")["pooled"].shape == (1, 1280)
    # The last word of all is read, by both towers, in the same row.
    changed = (host.rows("xl") - host.rows("other")).abs().amax(0) > 1e-3
    first = [int(half.any(-1).nonzero()[0]) for half in changed.split([768, 1280], dim=-1)]
    assert first[0] == first[1] > 248 * (windows - 1)
    unequal = Graph()
    clip = unequal.add("LongClipLoader", clip_name="g.safetensors", type="sdxl", clip_name2="longclip-L.pt")
    unequal.probe(unequal.add("LongClipTextEncode", clip=clip, text=text, split="sentence"), "no")
    assert "L 248 and G 77 tokens" in host.error(unequal)


def test_context_keeps_the_windows_own_rows(host):
    graph = Graph()
    clip = stock_clip(graph)
    for name, context in (("none", "none"), ("related", "related")):
        node = graph.add("LongClipTextEncode", clip=clip, text=STORY * 2, split="sentence", context=context)
        graph.probe(node, name)
    report = graph.add("PreviewAny", source=node[2])
    assert "read behind:" in text_of(host.run(graph), report)
    assert host.rows("related").shape[1] % 77 == 0
    assert_close(host.rows("related")[:, :40], host.rows("none")[:, :40], atol=1e-4, rtol=1e-4)


def test_min_windows_and_pooled(host):
    graph = Graph()
    clip = stock_clip(graph)
    for pooled in ("first", "last", "mean"):
        options = {"split": "sentence", "pooled": pooled, "min_windows": 6}
        graph.probe(graph.add("LongClipTextEncode", clip=clip, text=STORY * 3, **options), pooled)
    host.run(graph)
    assert host.rows("first").shape[1] == 6 * 77
    vectors = [host.probed(name)["pooled"] for name in ("first", "last", "mean")]
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-2)


def test_a_saved_long_clip_and_a_checkpoint_with_one_load_again(host):
    graph = Graph()
    model = graph.add("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    clip = stretched(graph, model[1])
    graph.probe(graph.add("LongClipTextEncode", clip=clip, text=STORY, split="sentence"), "made")
    graph.add("CLIPSave", clip=clip, filename_prefix="saved/clip")
    graph.add("CheckpointSave", model=model, clip=clip, vae=model[2], filename_prefix="saved/checkpoint")
    host.run(graph)
    (clip_file,) = (host.base / "output" / "saved").glob("clip*")
    (checkpoint,) = (host.base / "output" / "saved").glob("checkpoint*")
    shutil.move(clip_file, host.base / "models" / "text_encoders" / "saved.safetensors")
    shutil.move(checkpoint, host.base / "models" / "checkpoints" / "saved.safetensors")

    graph = Graph()
    again = graph.add("LongClipLoader", clip_name="saved.safetensors", type="sd15")
    graph.probe(graph.add("LongClipTextEncode", clip=again, text=STORY, split="sentence"), "clip")
    loaded = graph.add("LongClipCheckpointLoader", ckpt_name="saved.safetensors")
    graph.probe(graph.add("LongClipTextEncode", clip=loaded[1], text=STORY, split="sentence"), "checkpoint")
    host.run(graph)
    assert host.rows("made").shape == (1, 248, 768)
    assert torch.equal(host.rows("clip"), host.rows("made"))
    assert torch.equal(host.rows("checkpoint"), host.rows("made"))

    graph = Graph()
    graph.probe(graph.add("CLIPTextEncode", clip=core_loader(graph, "saved.safetensors")[1], text="a"), "no")
    assert "size mismatch" in host.error(graph)  # what the node is for


def core_loader(graph, name):
    return graph.add("CheckpointLoaderSimple", ckpt_name=name)


def test_matched_conditionings_draw_a_picture(host):
    graph = Graph()
    model = graph.add("LongClipCheckpointLoader", ckpt_name="sd15.safetensors")
    clip = stretched(graph, model[1])
    positive = graph.add("LongClipTextEncode", clip=clip, text=STORY * 4, split="sentence")
    negative = graph.add("CLIPTextEncode", clip=clip, text="blurry")
    matched = graph.add("LongClipMatch", positive=positive, negative=negative, clip=clip)
    graph.probe(positive, "positive")
    graph.probe(negative, "negative")
    graph.probe(matched[0], "matched positive")
    graph.probe(matched[1], "matched negative")
    latent = graph.add("EmptyLatentImage", **SIZES)
    wiring = {"model": model, "positive": matched[0], "negative": matched[1], "latent_image": latent}
    sampled = graph.add("KSampler", **wiring, **SAMPLING)
    picture = graph.add("VAEDecode", samples=sampled, vae=model[2])
    graph.add("SaveImage", images=picture, filename_prefix="picture")
    graph.add("SaveLatent", samples=sampled, filename_prefix="latent")
    host.run(graph)
    assert list((host.base / "output").glob("picture*.png"))
    (saved,) = (host.base / "output").glob("latent*")
    assert load_file(saved)["latent_tensor"].isfinite().all()
    assert torch.equal(host.rows("matched positive"), host.rows("positive"))
    assert host.rows("matched negative").shape == host.rows("positive").shape
    assert torch.equal(host.rows("matched negative")[:, :248], host.rows("negative"))


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        ("longclip-B.safetensors", "sd15", "it is 512 wide.*longclip-L"),
        ("pointer.safetensors", "sd15", "Git LFS pointer"),
        ("page.pt", "sd15", "web page"),
        ("l.safetensors", "sd2", r"type sd2 reads CLIP-H.*l\.safetensors \(CLIP-L"),
        ("l.safetensors", "sdxl", r"reads CLIP-L.*and CLIP-G.*clip_name2"),
    ],
)
def test_a_wrong_file_is_a_message_and_the_server_goes_on(host, file, kind, message):
    graph = Graph()
    clip = graph.add("LongClipLoader", clip_name=file, type=kind)
    graph.probe(graph.add("CLIPTextEncode", clip=clip, text="a"), "no")
    assert re.search(message, host.error(graph), re.DOTALL)
    assert host.get("/system_stats")


def test_example_workflows_are_offered_and_run(host):
    files = sorted((REPOSITORY / "example_workflows").glob("*.json"))
    assert sorted(host.get("/workflow_templates")["my-nodes"]) == [file.stem for file in files]
    info = host.get("/object_info")
    replaced = {
        "ckpt_name": "sd15.safetensors",
        "clip_name": "longclip-L.pt",
        "width": 64,
        "height": 64,
        "steps": 2,
    }
    for file in files:
        graph = api_format(json.loads(file.read_text()), info)
        for node in graph.values():
            node["inputs"].update({name: value for name, value in replaced.items() if name in node["inputs"]})
        outputs = host.run(graph)
        assert any("images" in output for output in outputs.values()), file.name
