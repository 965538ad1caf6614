"""Safe reading of one weight file: it is recognised by its first bytes, and nothing in it is ever executed."""

import hashlib
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["read_shapes", "read_tensors", "sha256_of"]

_DOWNLOAD_AGAIN = "Download it again, for example with `hf download OWNER/NAME FILE`."
# What stands at the head of files that are saved under a checkpoint's name by mistake.
_IMPOSTORS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights. Run `git lfs pull` in its repository."),
    (b"<!doctype html", f"is a web page (HTML), not weights. {_DOWNLOAD_AGAIN}"),
    (b"<html", f"is a web page (HTML), not weights. {_DOWNLOAD_AGAIN}"),
    (b"<?xml", f"is an XML page, often a server's error message, not weights. {_DOWNLOAD_AGAIN}"),
    (b"gguf", "is a GGUF file, whose quantised tensors are not supported. Use a .safetensors or .pt file."),
)
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights


def read_tensors(path: Path, *, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor of a .safetensors, .pt or .bin file by its name, on the CPU; the file name plays no part.

    Args:
        prefix: only those whose names begin with it, without it.

    Raises:
        CheckpointError: missing, empty, damaged, not a checkpoint (LFS pointer, web page ...), a TorchScript archive,
            or a pickle that holds more than plain tensors.
    """
    head = _read_head(path)
    if _is_safetensors(head):
        return _read_safetensors(path, prefix)
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path)
    elif not head.startswith(b"\x80"):  # the pickles of torch < 1.6
        raise CheckpointError(f"{path} is not a checkpoint: neither safetensors nor a PyTorch file. {_DOWNLOAD_AGAIN}")
    tensors = _tensors_in(_read_pickle(path), path)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape by its name; of a safetensors file only the header is read.

    Raises:
        CheckpointError: as `read_tensors`.
    """
    if not _is_safetensors(_read_head(path)):
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    with _safetensors_errors(path), safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise CheckpointError(f"{path} is empty. {_DOWNLOAD_AGAIN}")
    for start, meaning in _IMPOSTORS:
        if head.lstrip().lower().startswith(start):
            raise CheckpointError(f"{path} {meaning}")
    return head


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{"  # eight bytes of header length, then the JSON header


def _read_safetensors(path: Path, prefix: str) -> dict[str, Tensor]:
    with _safetensors_errors(path), safe_open(path, framework="pt") as file:
        wanted = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # no mapping
        return {name.removeprefix(prefix): file.get_tensor(name) for name in wanted}


@contextmanager
def _safetensors_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is a damaged or cut-off safetensors file ({error}). {_DOWNLOAD_AGAIN}"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse zip archives that `torch.load` would refuse with a worse message, or that hold a program."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged or was cut off on the way ({error}). {_DOWNLOAD_AGAIN}") from error
    if any("/code/" in name for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript archive, a program and not only weights (OpenAI's own .pt files are such). If "
            'you trust it, extract its weights once: python -c "import torch; '
            f"torch.save(torch.jit.load('{path.name}', map_location='cpu').state_dict(), '{path.stem}-state.pt')\""
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(f"{path} is a zip archive without PyTorch weights. Unpack it and give the file inside.")


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch would judge by the name
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported" not in str(error).lower():
            raise CheckpointError(f"{path} is damaged or was cut off. {_DOWNLOAD_AGAIN}") from error
        raise CheckpointError(
            f"{path} holds Python objects beside plain tensors; opening it could run code, so it was not opened. If "
            "you trust it, save `model.state_dict()` from the program that wrote it, or ask its author for safetensors."
        ) from error
    except Exception as error:  # torch.load lets out whatever its unpickler trips over
        raise CheckpointError(f"{path} is damaged or was cut off ({error}). {_DOWNLOAD_AGAIN}") from error


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), dict):
                return _tensors_in(content[wrapper], path)
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise CheckpointError(f"{path} holds a {type(content).__name__} without named tensors, not a model's weights.")
