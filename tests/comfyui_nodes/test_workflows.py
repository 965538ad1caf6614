"""The example workflows fit the nodes: ids, links, order and number of widget values. ComfyUI runs them elsewhere."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from longclip_diffusers.comfyui import NODE_CLASS_MAPPINGS

FOLDER = Path(__file__).parent.parent.parent / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def ours(workflow):
    return [node for node in workflow["nodes"] if node["type"] in NODE_CLASS_MAPPINGS]


def test_there_are_three_with_thumbnails():
    assert [path.stem for path in WORKFLOWS] == ["chapter", "sd15_long_prompt", "sdxl_long_prompt"]
    for path in WORKFLOWS:
        with Image.open(path.with_suffix(".jpg")) as picture:
            assert max(picture.size) <= 640
        assert path.with_suffix(".jpg").stat().st_size < 60_000


def test_links_join_equal_types(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link, source, output, target, slot, kind in workflow["links"]:
        assert nodes[source]["outputs"][output]["type"] == kind
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == link
    assert workflow["last_link_id"] == len(workflow["links"])
    assert workflow["last_node_id"] == max(nodes)


def test_our_nodes_have_their_outputs_and_widget_values(workflow, monkeypatch):
    names = SimpleNamespace(get_filename_list=lambda folder: ["longclip-L.pt"])
    monkeypatch.setitem(sys.modules, "folder_paths", names)
    assert ours(workflow)
    for node in ours(workflow):
        kind = NODE_CLASS_MAPPINGS[node["type"]]
        assert [output["type"] for output in node["outputs"]] == list(kind.RETURN_TYPES)
        assert [output["name"] for output in node["outputs"]] == list(kind.RETURN_NAMES)
        declared = kind.INPUT_TYPES()
        inputs = {**declared["required"], **declared.get("optional", {})}
        widgets = [options for options in inputs.values() if isinstance(options[0], list) or options[0] in WIDGETS]
        for (choices, *_), value in zip(widgets, node["widgets_values"], strict=True):
            if isinstance(choices, list):
                assert value in choices
            else:
                assert isinstance(value, {"INT": int, "STRING": str}[choices])
        linked = {slot["name"] for slot in node["inputs"] if slot["link"]}
        assert linked == {name for name, options in inputs.items() if options not in widgets}


def test_every_prompt_is_longer_than_a_stock_prompt(workflow):
    texts = [node["widgets_values"][0] for node in ours(workflow) if node["type"] == "LongClipTextEncode"]
    assert max(len(text.split()) for text in texts) > 100
