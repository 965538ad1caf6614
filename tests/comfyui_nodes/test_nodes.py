"""What saved workflows refer to does not change; declaring nodes costs nothing and needs no ComfyUI, no model."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from comfyui_stand_in import Clip, fragments

from longclip_diffusers.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, prompts

REPOSITORY = Path(__file__).parent.parent.parent
# Ids, input names in order, types of outputs in order: an interface. Additions only, and optional ones at the end.
INTERFACE = {
    "LongClipStretch": (["clip", "max_tokens", "keep", "encoders"], ("CLIP", "STRING")),
    "LongClipLoader": (["clip_name", "type", "clip_name2", "device"], ("CLIP", "STRING")),
    "LongClipTextEncode": (
        ["clip", "text", "split", "context", "min_windows", "pooled"],
        ("CONDITIONING", "INT", "STRING"),
    ),
    "LongClipTokenCount": (["clip", "text", "split"], ("INT", "INT", "STRING")),
    "LongClipMatch": (["positive", "negative", "clip"], ("CONDITIONING", "CONDITIONING")),
    "LongClipCheckpointLoader": (["ckpt_name"], ("MODEL", "CLIP", "VAE")),
}
# How comfy's nodes.py imports a folder of custom_nodes/, and what must not come with it.
AS_COMFYUI = """
import importlib.util, os, sys
path = sys.argv[1]
name = path.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, os.path.join(path, "__init__.py"))
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert sorted(module.NODE_CLASS_MAPPINGS) == sorted(module.NODE_DISPLAY_NAME_MAPPINGS)
print(len(module.NODE_CLASS_MAPPINGS), sorted({"torch", "numpy"} & set(sys.modules)))
inner = sys.modules[module.NODE_CLASS_MAPPINGS["LongClipStretch"].__module__].__package__
for part in ("stretching", "loading", "prompts", "encoding"):
    importlib.import_module(f"{inner}.{part}")
print(sorted({"transformers", "diffusers", "accelerate", "ftfy", "compel"} & set(sys.modules)))
assert "longclip_diffusers" not in sys.modules
"""


@pytest.fixture
def folder_paths(monkeypatch):
    """ComfyUI's module of that name, with no model in any folder."""
    module = SimpleNamespace(get_filename_list=lambda folder: [])
    monkeypatch.setitem(sys.modules, "folder_paths", module)


def inputs(node):
    parts = node.INPUT_TYPES()
    assert set(parts) <= {"required", "optional"}
    return {**parts.get("required", {}), **parts.get("optional", {})}


def test_the_interface_is_kept(folder_paths):
    found = {name: (list(inputs(node)), node.RETURN_TYPES) for name, node in NODE_CLASS_MAPPINGS.items()}
    assert found == INTERFACE
    assert set(NODE_DISPLAY_NAME_MAPPINGS) == set(INTERFACE)
    assert len(set(NODE_DISPLAY_NAME_MAPPINGS.values())) == len(INTERFACE)


@pytest.mark.parametrize("node", NODE_CLASS_MAPPINGS.values(), ids=lambda node: node.__name__)
def test_every_node_explains_itself_and_takes_its_inputs(node, folder_paths):
    assert node.DESCRIPTION and node.CATEGORY == "Long-CLIP"
    assert len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES)
    parameters = list(inspect.signature(getattr(node, node.FUNCTION)).parameters.values())[1:]
    assert [parameter.name for parameter in parameters] == list(inputs(node))
    optional = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty
    }
    declared = node.INPUT_TYPES().get("optional", {})
    assert optional == {name: options["default"] for name, (_, options) in declared.items()}
    for kind, options in inputs(node).values():
        assert options["tooltip"].endswith((".", ".)"))
        if isinstance(kind, list) and "default" in options:
            assert options["default"] in kind


def test_nodes_return_what_they_declare(monkeypatch):
    monkeypatch.setattr(prompts, "_fragments", fragments)
    nodes = {name: node() for name, node in NODE_CLASS_MAPPINGS.items()}
    long, report = nodes["LongClipStretch"].stretch(Clip(l=77), 248, 20, "all")
    assert report == "L 77 -> 248"
    conditioning, windows, report = nodes["LongClipTextEncode"].encode(long, "a fox " * 99, "sentence")
    assert (windows, len(report.splitlines()), conditioning[0][0].shape[1]) == (2, 3, 496)
    counted = nodes["LongClipTokenCount"].count(long, "a fox " * 99, "sentence")
    assert counted == {"ui": {"text": [report]}, "result": (396, 2, report)}
    short = nodes["LongClipTextEncode"].encode(long, "a fox", "token")[0]
    matched = nodes["LongClipMatch"].match(conditioning, short, long)
    assert [entry[0][0].shape[1] for entry in matched] == [496, 496]


@pytest.mark.parametrize("link", [True, False], ids=["symlink", "copy"])
@pytest.mark.parametrize("name", ["my-nodes", "longclip_diffusers", "a.b"])
def test_the_repository_is_a_node_pack_under_any_name(name, link, tmp_path):
    folder = tmp_path / "custom_nodes" / name
    folder.parent.mkdir()
    if link:
        folder.symlink_to(REPOSITORY)
    else:
        folder.mkdir()
        shutil.copy(REPOSITORY / "__init__.py", folder)
        ignored = shutil.ignore_patterns("models", "__pycache__")
        shutil.copytree(REPOSITORY / "longclip_diffusers", folder / "longclip_diffusers", ignore=ignored)
    command = [sys.executable, "-c", AS_COMFYUI, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.stdout, done.stderr) == ("6 []\n[]\n", "")


def test_a_clone_named_like_the_package_is_the_package(tmp_path):
    (tmp_path / "longclip_diffusers").symlink_to(REPOSITORY)
    code = (
        "import longclip_diffusers as package, longclip_diffusers.pipelines as pipelines\n"
        "print(len(package.__all__) > 5, package.plan_windows.__module__, package.__file__, pipelines.__file__)"
    )
    clean = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=clean, check=True
    )
    inside = tmp_path / "longclip_diffusers"
    assert done.stdout.split() == [
        "True",
        "longclip_diffusers.windows",
        str(inside / "longclip_diffusers" / "__init__.py"),
        str(inside / "pipelines" / "__init__.py"),
    ]
