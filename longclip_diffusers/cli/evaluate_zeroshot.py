"""`longclip evaluate zeroshot`: which class's description is nearest to the picture."""

from pathlib import Path

from tqdm.auto import tqdm

from .exits import UsageError, quiet_libraries

__all__ = ["zeroshot"]

NUM_SCENES = 200  # of the storybook


def zeroshot(
    *,
    model: str | None = None,
    data: str = "storybook",
    base: str | None = None,
    num_samples: int | None = None,
    classes: Path | None = None,
    templates: Path | None = None,
    name: str | None = None,
    json: Path = Path("outputs/zeroshot.json"),
    batch_size: int = 64,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Zero-shot classification: acc1, acc5 and mean per class recall on class folders, or the storybook's slots.

    Args:
        model: a CLIP with both towers: file, folder, hub id or training output. The bundled one if not given.
        data: folder:DIR with one sub-folder of pictures a class, or storybook: for each thing in unseen scenes, which
            of its words (a colour, a kind, a count, on or off) fits it?
        base: another CLIP whose rows stand beside, usually the one that the model was trained from.
        num_samples: pictures, drawn evenly; all of a folder, and 200 scenes of the storybook, if not given.
        classes: a JSON object of names by sub-folder, {"n01440764": ["tench", "Tinca tinca"]}; the sub-folders' own
            names, spaces for underscores, if not given.
        templates: a text file, one a line, {} for the name; eight of OpenAI's if not given.
        name: of the data in the rows; the folder's if not given.
        json: where the rows, settings and the sha256 of the model's files go.
        batch_size: pictures, or texts, encoded at once.
        seed: of the storybook's scenes, or of which pictures are drawn.
        device: cpu or cuda.
    """
    if (num_samples is not None and num_samples < 1) or batch_size < 1:
        raise UsageError("--num-samples and --batch-size are 1 or more.")
    if data == "storybook" and (classes or templates):
        raise UsageError("--classes and --templates are for folder:DIR; the storybook has its own.")
    quiet_libraries()
    from ..errors import LongClipError
    from ..evaluation.slots import storybook_zeroshot
    from ..evaluation.zeroshot import (
        TEMPLATES,
        ZeroShot,
        class_folders,
        evaluate_zeroshot,
        read_classes,
        read_templates,
    )
    from ..training.data.images import read_image
    from .evaluated import Sources, data_name, report

    sources, bad = Sources(model, base), list[LongClipError]()
    if data == "storybook":
        encoders, num_scenes = sources.open(device), num_samples or NUM_SCENES
        shown = tqdm(encoders, desc="encoding", unit="encoder")
        rows = [
            row
            for each in shown
            for row in storybook_zeroshot(
                each.clip, each.tokenizer, each.processor, num_scenes, seed, encoder=each.name, batch_size=batch_size
            )
        ]
        result = ZeroShot(rows, {})
        settings: dict[str, object] = {"num_samples": num_scenes}
    else:
        folders = class_folders(Path(data.removeprefix("folder:")), read_classes(classes) if classes else None)
        folders = folders if num_samples is None else folders.sample(num_samples, seed=seed)
        used = read_templates(templates) if templates else TEMPLATES
        encoders = sources.open(device)
        pictures = folders.readable(lambda file: read_image(file, str(file)), bad)
        shown = tqdm(pictures, total=len(folders.files), desc="reading", unit="picture")
        result = evaluate_zeroshot(
            encoders, shown, folders.names, name=name or data_name(data), templates=used, batch_size=batch_size
        )
        settings = {"num_samples": len(folders.files), "classes": folders.names, "templates": used}
    report(json, result.rows, sources, bad, result.truncated, data=data, seed=seed, **settings)
