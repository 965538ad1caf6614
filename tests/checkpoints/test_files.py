"""Reading one file: by content and never by name, nothing executed, every impostor named."""

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from longclip_diffusers.checkpoints.files import read_shapes, read_tensors, sha256_of
from longclip_diffusers.errors import CheckpointError

STATE = {"one": torch.arange(600.0), "two": torch.ones(3, 4, dtype=torch.float16)}


class Malicious:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.bin", "a"])
@pytest.mark.parametrize(
    "save",
    [
        lambda path: save_file(STATE, path),
        lambda path: torch.save(STATE, path),
        lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
        lambda path: torch.save({"epoch": 3, "state_dict": STATE, "optimizer": {}}, path),
        lambda path: torch.save({"model": {**STATE, "note": "text"}}, path),
    ],
)
def test_every_kind_of_file_is_read_whatever_it_is_called(save, name: str, tmp_path: Path) -> None:
    save(tmp_path / name)
    tensors = read_tensors(tmp_path / name)
    assert list(tensors) == list(STATE)
    assert all(torch.equal(tensors[key], STATE[key]) for key in STATE)
    assert read_shapes(tmp_path / name) == {key: tuple(tensor.shape) for key, tensor in STATE.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<html><body>429</body></html>", "a web page"),
        (b"<?xml version='1.0'?><Error>", "XML page"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"hello, this is a text", "neither safetensors nor a PyTorch file"),
        (pickle.dumps([1, 2, 3], protocol=2), "list without named tensors|damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "longclip-L.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("lost", [200, 2000])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_truncated_file_is_called_damaged(kind: str, lost: int, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(new_format: bool, tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"weight": Malicious(trace)}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match="could run code, so it was not opened"):
        read_tensors(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert trace.exists()


def test_a_whole_pickled_model_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.state_dict\(\)"):
        read_tensors(tmp_path / "model.pt")


def test_a_plain_malicious_pickle_is_refused_too(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"weight": Malicious(trace)}, protocol=2))
    with pytest.raises(CheckpointError):
        read_tensors(path)
    assert not trace.exists()


def test_a_torchscript_archive_is_refused_with_the_conversion(tmp_path: Path) -> None:
    path = tmp_path / "ViT-L-14.pt"
    with zipfile.ZipFile(path, "w") as archive:  # the members that `torch.jit.save` writes
        for name in ("data.pkl", "constants.pkl", "code/__torch__/module.py", "version"):
            archive.writestr(f"archive/{name}", "x")
    with pytest.raises(CheckpointError, match=r"TorchScript.*torch\.jit\.load\('ViT-L-14\.pt'.*ViT-L-14-state\.pt"):
        read_tensors(path)


def test_other_archives_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("longclip-L.pt", "x")
    with pytest.raises(CheckpointError, match="zip archive without PyTorch weights"):
        read_tensors(path)
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_tensors(tmp_path / "absent.pt")


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], {"epoch": 3}, {}])
def test_a_file_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="without named tensors"):
        read_tensors(tmp_path / "a.pt")


def test_sha256(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
