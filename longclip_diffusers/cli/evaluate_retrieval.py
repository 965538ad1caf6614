"""`longclip evaluate retrieval`: which caption belongs to which picture."""

from pathlib import Path

from tqdm.auto import tqdm

from .exits import UsageError, quiet_libraries

__all__ = ["retrieval"]


def retrieval(
    *,
    model: str | None = None,
    data: str = "storybook",
    base: str | None = None,
    num_samples: int = 500,
    name: str | None = None,
    json: Path = Path("outputs/retrieval.json"),
    batch_size: int = 64,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Recall at 1, 5 and 10 of long and of short captions, both ways, and whether scores rise as more is read (HiMo).

    Equal pictures count as one with several captions. Ties count against. Texts longer than the encoder's positions
    are cut, and the share of them is told.

    Args:
        model: a CLIP with both towers: file, folder, hub id or training output. The bundled one if not given.
        data: storybook (scenes no training draws, in groups of four that differ in two things), folder:DIR, jsonl:FILE,
            csv:FILE, sharegpt4v:JSON:ROOT, wds:PATTERN, hf:NAME[:SPLIT], or a path. It needs pictures.
        base: another CLIP whose rows stand beside, usually the one that the model was trained from. It has to be
            named: a long checkpoint does not tell which that was.
        num_samples: the first so many samples of the data are measured. R@k depends on it, so every row tells it.
        name: of the data in the rows; its file's or folder's if not given.
        json: where the rows, settings and the sha256 of the model's files go.
        batch_size: pictures, or texts, encoded at once.
        seed: of the storybook's scenes.
        device: cpu or cuda.
    """
    if num_samples < 1 or batch_size < 1:
        raise UsageError("--num-samples and --batch-size are 1 or more.")
    quiet_libraries()
    from ..errors import LongClipError
    from ..evaluation.retrieval import evaluate_retrieval, readable
    from ..storybook.phrases import UNSEEN
    from ..training.data import open_data
    from ..training.data.storybook import StorybookData
    from .evaluated import Sources, data_name, report

    opened = open_data(data, seed=seed)
    if not opened.has_images:
        raise LongClipError(f"{data} has captions without pictures; retrieval needs both. Give other --data.")
    if isinstance(opened, StorybookData):
        opened = opened.held_out(num_samples, phrases=UNSEEN)
    sources, bad = Sources(model, base), list[LongClipError]()
    encoders = sources.open(device)
    samples = readable(opened, num_samples, bad)
    shown = tqdm(samples, total=min(num_samples, len(opened)), desc="reading", unit="sample")
    result = evaluate_retrieval(encoders, shown, name=name or data_name(data), batch_size=batch_size)
    counts = {"num_samples": num_samples, "num_images": result.num_images, "num_texts": result.num_texts}
    report(json, result.rows, sources, bad, result.truncated, data=data, seed=seed, **counts)
