"""A real ComfyUI, headless, with folders of its own: started once, given workflows, asked what came out."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

REPOSITORY = Path(__file__).parent.parent
FOLDER = "LONGCLIP_COMFYUI"  # ComfyUI's folder; unset: the tests that need it are skipped
COMMAND = "LONGCLIP_COMFYUI_COMMAND"  # what starts it there, "python main.py" if not set
PYTHON = "LONGCLIP_COMFYUI_PYTHON"  # its Python, ours if not set
PATIENCE = 300  # seconds for the server to start, and for one workflow on a busy machine


class Graph(dict[str, Any]):
    """A workflow in ComfyUI's API format."""

    def add(self, kind: str, **inputs: Any) -> "Node":
        """Add a node; an input that is a Node means its first output."""
        key = str(len(self) + 1)
        given = {name: getattr(value, "output", value) for name, value in inputs.items()}
        self[key] = {"class_type": kind, "inputs": given}
        return Node(key)

    def probe(self, conditioning: "Node", name: str) -> None:
        """Have a conditioning written to the output folder; `Host.rows(name)` reads it."""
        self.add("LongClipTestProbe", conditioning=conditioning, name=name)


@dataclass(frozen=True)
class Node:
    """A node of a graph, standing for one of its outputs."""

    key: str
    index: int = 0

    @property
    def output(self) -> list[Any]:
        return [self.key, self.index]

    def __getitem__(self, index: int) -> "Node":
        return Node(self.key, index)


@dataclass
class Host:
    """A running server with `base` as its base directory."""

    url: str
    base: Path
    process: subprocess.Popen[bytes]
    log: Path
    sent: int = field(default=0)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=PATIENCE) as reply:
            return json.load(reply)

    def run(self, graph: Graph) -> dict[str, Any]:
        """Each node's ui output by its key; AssertionError with the server's own words where something failed."""
        done = self.try_to_run(graph)
        assert done["status"]["status_str"] == "success", _failure(done)
        return done["outputs"]

    def error(self, graph: Graph) -> str:
        """The message that the user sees of a workflow that fails."""
        return _failure(self.try_to_run(graph))

    def try_to_run(self, graph: Graph) -> dict[str, Any]:
        """The history entry of a workflow, all nodes of which are valid."""
        body = json.dumps({"prompt": graph}).encode()
        request = urllib.request.Request(f"{self.url}/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                queued = json.load(reply)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        assert not queued["node_errors"], queued["node_errors"]
        for _ in range(PATIENCE * 2):
            history = self.get(f"/history/{queued['prompt_id']}")
            if history:
                return history[queued["prompt_id"]]
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.5)
        raise AssertionError("no answer in time")

    def rows(self, name: str) -> Tensor:
        return self.probed(name)["rows"]

    def probed(self, name: str) -> dict[str, Tensor]:
        return load_file(self.base / "output" / f"{name}.safetensors")


def api_format(workflow: dict[str, Any], object_info: dict[str, Any]) -> Graph:
    """A workflow as the browser saves it -> as `/prompt` takes it; what the front end does when Run is pressed."""
    sources = {link: [str(node), slot] for link, node, slot, *_ in workflow["links"]}
    graph = Graph()
    for node in workflow["nodes"]:
        if node["type"] not in object_info:  # notes, which the server does not know
            assert node["type"] in ("Note", "MarkdownNote"), node["type"]
            continue
        info = object_info[node["type"]]
        links = {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        values = iter(node["widgets_values"])
        given: dict[str, Any] = {}
        for part, names in info["input_order"].items():
            for name in names if part in ("required", "optional") else ():
                kind, options = [*info["input"][part][name], {}][:2]
                if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                    given[name] = next(values)
                    if options.get("control_after_generate"):
                        next(values)
                if name in links:
                    given[name] = links[name]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    return graph


def make_models(models: Path) -> None:
    """Random model files, by ComfyUI's own Python."""
    script = REPOSITORY / "tests" / "comfyui" / "make_models.py"
    subprocess.run([_python(), script, os.environ[FOLDER], models], check=True, cwd=models)


@contextmanager
def running(base: Path) -> Iterator[Host]:
    """A server whose custom nodes are this repository, under another folder name, and the tests' probe."""
    nodes = base / "custom_nodes"
    nodes.mkdir(parents=True)
    (base / "output").mkdir()
    (nodes / "my-nodes").symlink_to(REPOSITORY)
    shutil.copytree(REPOSITORY / "tests" / "comfyui" / "probe", nodes / "probe")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--cpu", "--port", str(port), "--base-directory", str(base), "--disable-api-nodes"]
    command = shlex.split(os.environ.get(COMMAND, f"{_python()} main.py"))
    log = base / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], cwd=os.environ[FOLDER], stdout=output, stderr=subprocess.STDOUT
        )
        host = Host(f"http://127.0.0.1:{port}", base, process, log)
        try:
            _wait(host)
            yield host
        finally:
            process.terminate()
            process.wait()


def _failure(done: dict[str, Any]) -> str:
    return next(body["exception_message"] for kind, body in done["status"]["messages"] if kind == "execution_error")


def _python() -> str:
    return os.environ.get(PYTHON, sys.executable)


def _wait(host: Host) -> None:
    for _ in range(PATIENCE):
        assert host.process.poll() is None, host.log.read_text()[-3000:]
        try:
            host.get("/system_stats")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    raise AssertionError(host.log.read_text()[-3000:])
