"""What the package offers, and that looking at it costs nothing."""

import importlib
import subprocess
import sys

import pytest

import longclip_diffusers

IMPORT = """
import sys, threading
before = set(sys.modules)
import longclip_diffusers
assert longclip_diffusers.__version__ and dir(longclip_diffusers)
heavy = {"torch", "transformers", "diffusers", "numpy", "PIL", "huggingface_hub"} & (set(sys.modules) - before)
assert not heavy, heavy
assert threading.active_count() == 1
"""


def test_all_is_sorted_and_complete():
    assert list(longclip_diffusers.__all__) == sorted(set(longclip_diffusers.__all__))
    assert set(longclip_diffusers.__all__) <= set(dir(longclip_diffusers))


@pytest.mark.parametrize("name", longclip_diffusers.__all__)
def test_every_public_name_is_there_and_public_where_it_lives(name):
    found = getattr(longclip_diffusers, name)
    home = importlib.import_module(found.__module__)
    assert name in home.__all__
    assert found.__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Pipeline'"):
        _ = longclip_diffusers.Pipeline


def test_import_is_light_silent_and_without_side_effect(tmp_path):
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
