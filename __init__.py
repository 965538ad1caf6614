"""Entry for ComfyUI, which imports this folder, whatever its name, when it lies in custom_nodes/."""

if __name__ == "longclip_diffusers":
    # The clone itself was taken for the package of its name: by pytest, or by Python started one level up.
    import sys
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    _here = Path(__file__).parent
    _inner = _here / __name__
    _spec = spec_from_file_location(
        __name__, _inner / "__init__.py", submodule_search_locations=[str(_inner), str(_here)]
    )
    assert _spec is not None and _spec.loader is not None  # the file is there
    sys.modules[__name__] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
elif __package__:
    from .longclip_diffusers.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    __all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
