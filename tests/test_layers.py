"""The layers of the design: a module imports downwards, or sideways where that makes no circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import longclip_diffusers

PACKAGE = Path(longclip_diffusers.__file__).parent
PIPELINES = PACKAGE.parent / "pipelines"
NAME = "longclip_diffusers"

# Top to bottom; a module or subpackage in no row fails the test that follows. The front door (`__init__`, `_api`)
# imports nothing until it is asked, and may then import anything.
ROWS = (
    {"cli", "comfyui"},
    {"pipelines", "generation", "evaluation", "training"},
    {
        "mixin",
        "experimental",
        "loading",
        "components",
        "sidecar",
        "storybook",
        "pictures",
        "prompt_files",
        "embeddings",
        "saved_prompts",
    },
    {"conditioning", "kv_cache", "repeats", "syntax", "towers", "weighting"},
    {"text_encoder", "checkpoints"},
    {"tokenizer", "windows", "context", "passages", "positions", "sentences"},
    {"models", "errors"},
)
FRONT_DOOR = {"__init__", "__main__", "_api"}
LAYER = {name: row for row, names in enumerate(ROWS) for name in names}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted names below the package, and their files."""
    for root, prefix in ((PACKAGE, ()), (PIPELINES, ("pipelines",))):
        for path in sorted(root.rglob("*.py")):
            parts = (*prefix, *path.relative_to(root).with_suffix("").parts)
            yield ".".join(parts), path


def unit(module: str) -> str:
    """The module or subpackage of the design's table that a dotted name belongs to."""
    return module.split(".")[0]


def imported(module: str, path: Path) -> set[str]:
    """Dotted names below the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            if not node.level and not (node.module or "").startswith(NAME):
                continue
            inside = (node.module or "").split(".") if node.level else (node.module or "").split(".")[1:]
            whole = [*base, *(part for part in inside if part)]
            found |= {".".join([*whole, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix(f"{NAME}.") for alias in node.names if alias.name.startswith(f"{NAME}.")}
    return found


GRAPH = {
    module: {unit(name) for name in imported(module, path)} - {unit(module)}
    for module, path in modules()
    if unit(module) not in FRONT_DOOR
}


def test_every_module_has_its_row():
    assert {unit(module) for module in GRAPH} <= set(LAYER)


def test_imports_are_found():
    # Guards the tests below: a reader of imports that finds none would pass them all.
    assert {"conditioning", "windows", "loading"} <= GRAPH["mixin"]
    assert "mixin" in GRAPH["pipelines.auto"]
    assert "errors" in GRAPH["checkpoints.load"]


def test_no_module_imports_upwards():
    pairs = [(module, other) for module, others in GRAPH.items() for other in others]
    assert not [(module, other) for module, other in pairs if LAYER[other] < LAYER[unit(module)]]


def test_there_is_no_circle():
    edges = {name: set() for name in LAYER}
    for module, others in GRAPH.items():
        edges[unit(module)] |= others
    while leaves := {name for name, others in edges.items() if not others}:
        edges = {name: others - leaves for name, others in edges.items() if name not in leaves}
    assert not edges


def test_imports_inside_the_package_are_relative():
    # ComfyUI loads the folder under another name. pipelines/ is absolute, as diffusers copies its entry away.
    absolute = [
        module
        for module, path in modules()
        if not module.startswith("pipelines")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == NAME)
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == NAME for alias in node.names))
    ]
    assert not absolute
