"""`longclip comfy-install` writes a node pack that ComfyUI can import, and nothing over anybody else's."""

import importlib.util
import sys

import pytest

from longclip_diffusers.cli import longclip
from longclip_diffusers.comfyui.installing import FOLDER, WORKFLOWS, install_nodes
from longclip_diffusers.errors import LongClipError


@pytest.fixture
def comfyui(tmp_path):
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    return tmp_path / "ComfyUI"


def test_the_written_folder_is_a_node_pack_with_workflows(comfyui, capsys, monkeypatch):
    assert longclip.main(["comfy-install", str(comfyui)]) == 0
    folder = comfyui / "custom_nodes" / FOLDER
    assert str(folder) in capsys.readouterr().out
    spec = importlib.util.spec_from_file_location("somewhere/longclip_diffusers", folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert "LongClipTextEncode" in module.NODE_CLASS_MAPPINGS
    assert len(list((folder / WORKFLOWS).glob("*.json"))) == 3


def test_it_is_written_anew(comfyui):
    folder = install_nodes(comfyui)
    entry = (folder / "__init__.py").read_text()
    (folder / "__init__.py").write_text(entry + "broken")
    assert (install_nodes(comfyui) / "__init__.py").read_text() == entry


def test_a_clone_of_that_name_stays(comfyui):
    folder = comfyui / "custom_nodes" / FOLDER
    folder.mkdir()
    (folder / "__init__.py").write_text("a clone")
    with pytest.raises(LongClipError, match="was not written by longclip comfy-install"):
        install_nodes(comfyui)
    assert (folder / "__init__.py").read_text() == "a clone"


def test_a_folder_that_is_no_comfyui_is_named(tmp_path, capsys):
    assert longclip.main(["comfy-install", str(tmp_path)]) == 1
    assert "has no folder custom_nodes/" in capsys.readouterr().err
