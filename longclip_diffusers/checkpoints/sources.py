"""From what a user writes (file, folder, hub id) to the weight files on this disk and the config beside them."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .catalog import CATALOG
from .files import sha256_of

__all__ = ["Source", "find_second_encoder", "find_source"]

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_HUB_TIMEOUT = 10.0  # seconds to wait for the hub's answer, huggingface_hub's own default for downloads
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
# A diffusers folder, and a training run's output (its best state, else its last).
_SECOND = ("text_encoder_2/", "best/text_encoder_2/", "last/text_encoder_2/")
# SDXL's second encoder comes last: it is meant where nothing else is there.
_SUBFOLDERS = ("", "text_encoder/", "best/", "best/text_encoder/", "last/", "last/text_encoder/", *_SECOND)

Fetch = Callable[[str], Path | None]  # name in a folder or repository -> file on this disk; None where there is none


@dataclass(frozen=True)
class Source:
    """Weight files of one model (several when sharded), and its `config.json` and `preprocessor_config.json`, {} where
    there is none."""

    name: str
    files: tuple[Path, ...]
    config: dict[str, Any]
    preprocessor: dict[str, Any]


def find_source(
    source: str | Path,
    *,
    subfolder: str | None = None,
    weight_name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Source:
    """The weight files that `source` means, downloaded where it is a hub id that is not in the cache.

    Args:
        source: a file; a folder with weights, `text_encoder/`, `best/` or `last/`; or a hub id "owner/name".
        subfolder, weight_name: where in the folder or repository to look, and for which file.
        revision, token, cache_dir, local_files_only: as in huggingface_hub; used for hub ids only.

    Raises:
        CheckpointError: nothing there, several files to choose from, or a hub id that cannot be reached.
    """
    path, name = Path(source).expanduser(), str(source)
    if path.is_file():
        return _source(name, path.name, _files_in(path.parent))
    if path.is_dir():
        names = [*_candidates(subfolder, weight_name), *(item.name for item in path.iterdir())]
        present = {each for each in names if (path / each).is_file()}
        return _source(name, _choose(name, present, subfolder, weight_name), _files_in(path))
    if not _HUB_ID.fullmatch(name) or path.suffix in _SUFFIXES:
        raise CheckpointError(f"{name} is neither a file, a folder nor a hub id (owner/name). Check the path.")
    known = next((entry for entry in CATALOG if entry.repo == name), None)
    if known and subfolder is None and weight_name is None:
        weight_name = known.weights
    hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
    with _hub_errors(name):
        present, fetch = _repository(name, hub, local_files_only)
        found = _source(name, _choose(name, present, subfolder, weight_name), fetch)
    if known and known.sha256 and weight_name == known.weights and sha256_of(found.files[0]) != known.sha256:
        raise CheckpointError(f"{found.files[0]} is not the {weight_name} known of {name}: its SHA-256 differs.")
    return found


def find_second_encoder(
    source: str | Path,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> str | None:
    """The subfolder of a folder or hub id that holds SDXL's second text encoder; None where there is none.

    Args:
        subfolder: where the first one is, if that was said; the second is looked for beside it, under `..._2`.
        revision, token, cache_dir, local_files_only: as in `find_source`, as are the errors.
    """
    path, name = Path(source).expanduser(), str(source)
    folders = _SECOND if subfolder is None else (f"{subfolder.strip('/')}_2/",)
    if path.exists() or not _HUB_ID.fullmatch(name):
        return next((folder for folder in folders if any((path / folder / each).is_file() for each in _WEIGHTS)), None)
    if any(known.repo == name for known in CATALOG):
        return None  # those hold one encoder: no need to ask the hub
    with _hub_errors(name):
        hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
        present, _ = _repository(name, hub, local_files_only)
    return next((folder for folder in folders if any(folder + each in present for each in _WEIGHTS)), None)


def _candidates(subfolder: str | None, weight_name: str | None) -> list[str]:
    folders = _SUBFOLDERS if subfolder is None else (f"{subfolder.strip('/')}/",)
    return [folder + weights for folder in folders for weights in ((weight_name,) if weight_name else _WEIGHTS)]


def _choose(source: str, present: set[str], subfolder: str | None, weight_name: str | None) -> str:
    """Name of the weight file (or shard index) to open among the names that are there."""
    candidates = _candidates(subfolder, weight_name)
    loose = sorted(name for name in present if "/" not in name and name.endswith(_SUFFIXES))
    chosen = next((name for name in candidates if name in present), None)
    if chosen is None and subfolder is None and weight_name is None and "model_index.json" not in present:
        chosen = loose[0] if len(loose) == 1 else None
    if chosen is not None:
        return chosen
    hint = f" It holds {', '.join(loose)}: name one with weight_name=." if loose else ""
    raise CheckpointError(
        f"{source} holds no CLIP weights under a known name: {', '.join(dict.fromkeys(candidates))}.{hint}"
    )


def _source(name: str, weights: str, fetch: Fetch) -> Source:
    beside = weights[: weights.rfind("/") + 1]
    first = _required(name, weights, fetch)
    files: tuple[Path, ...] = (first,)
    if weights.endswith(".index.json"):
        shards = sorted(set(_json(first).get("weight_map", {}).values()))
        files = tuple(_required(name, beside + shard, fetch) for shard in shards)
    config, preprocessor = (fetch(beside + kind) for kind in ("config.json", "preprocessor_config.json"))
    return Source(name, files, _json(config) if config else {}, _json(preprocessor) if preprocessor else {})


def _required(name: str, weights: str, fetch: Fetch) -> Path:
    path = fetch(weights)
    if path is None:
        raise CheckpointError(f"{name} lacks {weights}; was it copied or downloaded completely?")
    return path


def _files_in(folder: Path) -> Fetch:
    return lambda name: folder / name if (folder / name).is_file() else None


def _repository(repo: str, hub: dict[str, Any], local_files_only: bool) -> tuple[set[str], Fetch]:
    """Names in a hub repository and how to get them; what the cache holds where the hub cannot be reached."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        if local_files_only:
            raise OfflineModeIsEnabled
        # Not `list_repo_files`, which tries an unreachable hub again for 20 seconds.
        found = HfApi(token=hub["token"]).model_info(repo, revision=hub["revision"], timeout=_HUB_TIMEOUT)
        present = {file.rfilename for file in found.siblings or ()}
    except HfHubHTTPError:  # the hub did answer: no such repository, no access ...
        raise
    except (OfflineModeIsEnabled, HTTPError):
        folder = Path(snapshot_download(repo, **hub, local_files_only=True, allow_patterns=[]))
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}, _files_in(folder)
    return present, lambda name: Path(hf_hub_download(repo, name, **hub)) if name in present else None


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{repo} is no path on this disk, not in the hub's local cache, and the hub cannot be reached (no network, "
            "or HF_HUB_OFFLINE is set). Check the path, download it once with a connection, or give a file or folder."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(f"{repo} cannot be had from the hub: {str(error).strip().splitlines()[0]}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return content
