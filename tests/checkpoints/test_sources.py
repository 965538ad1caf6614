"""Files, folders and hub ids: what is found, what is not, and that no network is needed for what is in the cache."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import checkpoint_makers as makers
import huggingface_hub
import pytest
import torch

from longclip_diffusers.checkpoints import load_text_encoder, long_clip_for_width, sources
from longclip_diffusers.checkpoints.catalog import CATALOG
from longclip_diffusers.checkpoints.sources import find_second_encoder, find_source
from longclip_diffusers.errors import CheckpointError
from longclip_diffusers.text_encoder import num_positions

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub ask another server; it reads its environment only once, at import."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in (("ENDPOINT", endpoint), ("HUGGINGFACE_CO_URL_TEMPLATE", template), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(huggingface_hub.constants, name, value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def cached(cache: Path, repo: str, **files: Path) -> Path:
    """The hub's cache as a download of these files leaves it; names with `__` for a folder's slash."""
    root = cache / f"models--{repo.replace('/', '--')}"
    revision = "0" * 40
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    for name, source in files.items():
        target = root / "snapshots" / revision / name.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return cache


def official(folder: Path) -> Path:
    torch.save(makers.longclip_state(), folder / "longclip-L.pt")
    return folder / "longclip-L.pt"


def test_a_file_is_itself_and_a_config_beside_it_is_read(tmp_path: Path) -> None:
    path = official(tmp_path)
    assert find_source(path).files == (path,)
    assert find_source(str(path)).config == {}
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert find_source(path).config == {"model_type": "clip"}


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    official(tmp_path)
    assert find_source("~/longclip-L.pt").files == (tmp_path / "longclip-L.pt",)


def test_the_only_weight_file_of_a_folder_is_taken(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "README.md").write_text("x")
    assert find_source(tmp_path).files == (tmp_path / "longclip-L.pt",)


def test_several_weight_files_have_to_be_chosen_from(tmp_path: Path) -> None:
    official(tmp_path)
    shutil.copy(tmp_path / "longclip-L.pt", tmp_path / "longclip-B.pt")
    with pytest.raises(CheckpointError, match=r"longclip-B\.pt, longclip-L\.pt: name one with weight_name="):
        find_source(tmp_path)
    assert find_source(tmp_path, weight_name="longclip-B.pt").files == (tmp_path / "longclip-B.pt",)
    with pytest.raises(CheckpointError, match=r"known name: other/x\.pt"):
        find_source(tmp_path, subfolder="other", weight_name="x.pt")


def test_a_diffusers_folder_never_means_a_loose_file(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no CLIP weights under a known name"):
        find_source(tmp_path)


def test_missing_shards_and_bad_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"lacks model-1\.safetensors"):
        find_source(tmp_path)
    official(tmp_path)
    for content, message in (("{", "not readable JSON"), ("[]", "not a JSON object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            find_source(tmp_path / "longclip-L.pt")


@pytest.mark.parametrize(
    "source", ["no/such/folder", "absent", "folder/longclip-L.pt", "/absent", "~/x.safetensors", ""]
)
def test_a_wrong_path_is_never_asked_of_the_hub(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"neither a file, a folder nor a hub id|no CLIP weights"):
        find_source(source)


@pytest.mark.usefixtures("offline")
def test_a_cached_hub_id_loads_without_a_network(tmp_path: Path) -> None:
    cache = cached(tmp_path / "cache", "BeichenZhang/LongCLIP-L", **{"longclip-L.pt": official(tmp_path)})
    assert num_positions(load_text_encoder("BeichenZhang/LongCLIP-L", cache_dir=cache)) == 248


@pytest.mark.usefixtures("offline")
def test_a_cached_folder_with_config_and_subfolder(tmp_path: Path) -> None:
    state = makers.text_only(makers.transformers_state(makers.openai_state()))
    folder = makers.folder(tmp_path / "text", state, {**makers.config_json(77, whole=False), "hidden_act": "gelu"})
    files = {f"text_encoder__{name}": folder / name for name in ("model.safetensors", "config.json")}
    cache = cached(tmp_path / "cache", "someone/sd", **files)
    encoder = load_text_encoder("someone/sd", cache_dir=cache)
    assert (num_positions(encoder), encoder.config.hidden_act) == (77, "gelu")


def test_local_files_only_asks_nobody(tmp_path: Path) -> None:
    cache = cached(tmp_path / "cache", "someone/model", **{"any.pt": official(tmp_path)})
    assert num_positions(load_text_encoder("someone/model", cache_dir=cache, local_files_only=True)) == 248


@pytest.mark.usefixtures("offline")
def test_an_uncached_hub_id_offline_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"someone/model is no path.*cannot be reached.*HF_HUB_OFFLINE"):
        load_text_encoder("someone/model", cache_dir=tmp_path)


def test_an_unreachable_hub_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(NOBODY, monkeypatch)
    with pytest.raises(CheckpointError, match="cannot be reached"):
        find_source("someone/model", cache_dir=tmp_path)


@pytest.mark.usefixtures("offline")
def test_a_known_hash_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = official(tmp_path)
    cache = cached(tmp_path / "cache", CATALOG[0].repo, **{CATALOG[0].weights: path})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for sha256, fits in ((digest, True), ("0" * 64, False)):
        monkeypatch.setattr(sources, "CATALOG", (replace(CATALOG[0], sha256=sha256),))
        if fits:
            assert find_source(CATALOG[0].repo, cache_dir=cache).files
        else:
            with pytest.raises(CheckpointError, match="its SHA-256 differs"):
                find_source(CATALOG[0].repo, cache_dir=cache)


def test_an_unknown_option_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="revison"):
        load_text_encoder(official(tmp_path), revison="main")


def test_the_catalog_knows_a_long_clip_for_a_width() -> None:
    assert long_clip_for_width(768) == "BeichenZhang/LongCLIP-L"
    assert long_clip_for_width(512) == "BeichenZhang/LongCLIP-B"
    assert long_clip_for_width(1024) is None
    assert all(known.sha256 is None for known in CATALOG)  # none was read from a real file yet


class Hub(BaseHTTPRequestHandler):
    """Two answers of the hub's HTTP interface: the list of a repository's files, and a file."""

    folder: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        repository, _, file = self.path.partition("/resolve/main/")
        path = self.folder / file
        if not repository.endswith("someone/model"):
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif not file:
            siblings = [{"rfilename": path.name} for path in self.folder.iterdir()]
            listing = {"id": "someone/model", "modelId": "someone/model", "siblings": siblings, "tags": []}
            self.answer(200, json.dumps({**listing, "private": False, "downloads": 0, "likes": 0}).encode(), {})
        elif path.is_file():
            self.answer(200, path.read_bytes(), {"ETag": f'"{file}"', "X-Repo-Commit": "1" * 40})
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub on this machine; what lies in the folder is its repository someone/model."""
    Hub.folder = tmp_path / "hub"
    Hub.folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    point_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield Hub.folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_id_is_downloaded_once_and_then_read_from_the_cache(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = makers.text_only(makers.transformers_state(makers.openai_state()))
    makers.folder(hub, state, {**makers.config_json(77, whole=False), "hidden_act": "gelu"})
    (hub / "v1-5-pruned.safetensors").write_bytes(b"never asked for")
    for reachable in (True, False):
        if not reachable:
            point_at(NOBODY, monkeypatch)
        encoder = load_text_encoder("someone/model", cache_dir=tmp_path / "cache")
        assert (num_positions(encoder), encoder.config.hidden_act) == (77, "gelu")
    assert not list((tmp_path / "cache").rglob("v1-5*"))


def test_local_files_only_does_not_ask_a_hub_that_would_answer(hub: Path, tmp_path: Path) -> None:
    official(hub)
    with pytest.raises(CheckpointError, match="not in the hub's local cache"):
        find_source("someone/model", cache_dir=tmp_path / "cache", local_files_only=True)
    assert find_source("someone/model", cache_dir=tmp_path / "cache").files


def test_an_unknown_repository_is_named(hub: Path, tmp_path: Path) -> None:
    del hub
    with pytest.raises(CheckpointError, match=r"someone/else cannot be had from the hub: .*404"):
        find_source("someone/else", cache_dir=tmp_path)


def test_sdxls_second_encoder_is_found_in_a_repository_beside_the_first(tmp_path: Path) -> None:
    weights = official(tmp_path)
    names = {"text_encoder__model.safetensors": weights, "text_encoder_2__model.safetensors": weights}
    names |= {"long__text_encoder__model.safetensors": weights, "long__text_encoder_2__model.safetensors": weights}
    cache = cached(tmp_path / "cache", "someone/xl", **names)
    assert find_second_encoder("someone/xl", cache_dir=cache) == "text_encoder_2/"
    assert find_second_encoder("someone/xl", cache_dir=cache, subfolder="long/text_encoder") == "long/text_encoder_2/"
    cache = cached(tmp_path / "other", "someone/sd", **{"text_encoder__model.safetensors": weights})
    assert find_second_encoder("someone/sd", cache_dir=cache) is None
    assert find_second_encoder(weights) is None
    assert find_second_encoder(CATALOG[0].repo, cache_dir=tmp_path / "empty") is None  # known, so not asked for
    with pytest.raises(CheckpointError, match="not in the hub's local cache"):
        find_second_encoder("someone/unknown", cache_dir=tmp_path / "empty")
