"""`longclip evaluate detail`: what a model's pictures show of what their texts describe."""

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from .exits import UsageError, quiet_libraries
from .workers import start_workers

if TYPE_CHECKING:
    from ..training.contest import Contest, Job

__all__ = ["detail"]

PLAIN = ("truncated", "windows_sentence", "long")


@dataclass(frozen=True)
class _Outputs:
    """Where a command's results go."""

    json: Path
    plot: Path
    examples: Path


def detail(
    *,
    model: Path | None = None,
    num_scenes: int = 200,
    seed: int = 0,
    json: Path | None = None,
    plot: Path | None = None,
    examples: Path | None = None,
    encoders: tuple[str, ...] = (),
    kinds: tuple[str, ...] = ("long", "chapter", "short"),
    device: str = "cpu",
    contest: bool = False,
    reader: bool = False,
    seeds: int = 3,
    work: Path = Path("runs/contest"),
    jobs: int = 2,
) -> None:
    """Detail recall on unseen storybook scenes: by token position, by reference, in chapters and in short prompts.

    Args:
        model: a storybook model; the bundled one if not given.
        num_scenes: scenes to draw of each kind of text, 2 or more.
        seed: of the scenes and of the noise.
        json: where the rows and the sha256 of the model's files go; outputs/detail.json if not given, of a contest
            contest.json or contest-reader.json, with its table in a .md beside it.
        plot: where the plots go; a PNG of the same name if not given.
        examples: where the first text of each kind goes as every encoder draws it, with what is wrong outlined (dotted
            where it is told by reference); NAME-examples.png beside the plot if not given. Not with --reader.
        encoders: truncated (stock diffusers), windows (stock encoder, 77-token windows cut anywhere), windows_sentence
            (cut at sentence ends), windows_context (each sentence behind those it needs), kps and linear (stretched,
            not trained), long (the model's own); in a contest also longclip, ours and ours_context, and not long. All
            that are in a contest, else truncated, windows_sentence and long, if not given.
        kinds: of text: long captions, chapters, short prompts.
        device: cpu or cuda.
        contest: fine-tune the trained encoders from several seeds, and measure all encoders; goes on where it stopped.
        reader: with --contest, before a frozen reader of token states instead of the UNet.
        seeds: with --contest, of each fine-tuning.
        work: with --contest, folder of the fine-tuned encoders and of finished measurements.
        jobs: with --contest, processes side by side, one thread each.
    """
    if reader and not contest:
        raise UsageError("--reader goes with --contest.")
    if reader and examples:
        raise UsageError("--examples is of pictures, which --reader draws none of.")
    if seeds < 1 or jobs < 1:
        raise UsageError(f"--seeds {seeds} --jobs {jobs}: expected 1 or more.")
    quiet_libraries()
    from ..evaluation.detail import check_kinds
    from ..models import bundled

    check_kinds(kinds)
    name = "contest-reader" if reader else "contest" if contest else "detail"
    json = json or Path("outputs") / f"{name}.json"
    plot = plot or json.with_suffix(".png")
    outputs = _Outputs(json, plot, examples or plot.with_name(f"{plot.stem}-examples.png"))
    folder = (model or bundled()).resolve()
    if not contest:
        _detail(folder, encoders or PLAIN, kinds, num_scenes, seed, device, outputs)
        return
    from ..training.contest import CONTESTANTS, Contest

    held = Contest(folder, work, num_scenes, seed, reader, device)
    _contest(held, encoders or CONTESTANTS, kinds, seeds, jobs, outputs)


def _detail(
    model: Path,
    encoders: Sequence[str],
    kinds: Sequence[str],
    num_scenes: int,
    seed: int,
    device: str,
    outputs: _Outputs,
) -> None:
    from ..evaluation.detail import CHANCE, Fact, describe_scenes, detail_tables, recall_rows, score
    from ..evaluation.encoders import draw_pictures, load_encoder
    from ..evaluation.examples import Example, plot_examples
    from ..evaluation.report import hash_model, plot_recall, write_json
    from ..sidecar import read_generation
    from ..storybook.checker import read_picture

    texts = {kind: describe_scenes(num_scenes, seed=seed, kind=kind) for kind in kinds}  # type: ignore[arg-type]
    pipes = {encoder: load_encoder(model, encoder, device=device) for encoder in encoders}
    generation = read_generation(model)
    facts: dict[str, list[Fact]] = {encoder: [] for encoder in encoders}
    shown = {kind: Example(kind, *pairs[0]) for kind, pairs in texts.items()}  # type: ignore[arg-type]
    rows = []
    for encoder, pipe in pipes.items():
        for kind, pairs in texts.items():
            pictures = draw_pictures(pipe, [str(caption) for _, caption in pairs], generation, seed=seed)
            drawn = dict(tqdm(pictures, total=num_scenes, desc=f"{encoder} {kind}", unit="picture"))
            found = [read_picture(drawn[number]) for number in range(num_scenes)]
            told = score(pairs, found, kind=kind)  # type: ignore[arg-type]
            shown[kind].add(encoder, drawn[0], told)
            facts[encoder] += told
        rows += recall_rows(encoder, facts[encoder])
    rows += recall_rows(CHANCE, facts[encoders[0]], chance=True)
    hashes = hash_model(model)
    write_json(outputs.json, rows, hashes, num_scenes=num_scenes, seed=seed)
    plot_recall(outputs.plot, facts)
    plot_examples(outputs.examples, list(shown.values()))
    print(detail_tables(rows))
    print(f"\nUNet sha256 {hashes['unet/diffusion_pytorch_model.safetensors']}")
    print(f"Rows in {outputs.json}, plot in {outputs.plot}, examples in {outputs.examples}.")


def _contest(
    contest: "Contest",
    encoders: Sequence[str],
    kinds: Sequence[str],
    seeds: int,
    jobs: int,
    outputs: _Outputs,
) -> None:
    from ..checkpoints.files import sha256_of
    from ..evaluation.detail import detail_tables, summary_table
    from ..evaluation.examples import plot_examples
    from ..evaluation.report import hash_model, plot_recall, write_json
    from ..training.contest import ARMS, Training, contest_examples, contest_rows, seed_rows

    trainings = contest.trainings(encoders, seeds)
    measurements = contest.measurements(encoders, kinds, seeds)  # type: ignore[arg-type]
    with start_workers(jobs) as pool:
        _run_all(pool, "train", trainings, jobs)
        _run_all(pool, "measure", measurements, jobs)
    rows, facts, judge = contest_rows(measurements)
    table = f"{summary_table(rows)}\n\n{detail_tables(rows)}"
    exports = {f"{each.name}/last/model.safetensors": each.export for each in trainings if isinstance(each, Training)}
    hashes = hash_model(contest.model) | {name: sha256_of(file) for name, file in exports.items()}
    settings = {"num_scenes": contest.num_scenes, "seed": contest.seed, "seeds": seeds, "arms": ARMS}
    write_json(outputs.json, rows, hashes, **settings, by_seed=[asdict(row) for row in seed_rows(measurements)])
    markdown = outputs.json.with_suffix(".md")
    markdown.write_text(table + "\n")
    plot_recall(outputs.plot, facts)
    print(table)
    print(f"\n{'Reader' if contest.reader else 'UNet'} sha256 {judge}, the same for all encoders.")
    print(f"Rows in {outputs.json}, table in {markdown}, plot in {outputs.plot}.")
    if not contest.reader:
        plot_examples(outputs.examples, contest_examples(measurements))
        print(f"Examples in {outputs.examples}.")


def _run_all(
    pool: ProcessPoolExecutor,
    phase: str,
    todo: "Sequence[Job]",
    jobs: int,
) -> None:
    """Run the jobs, a bar for all of them and one for each worker's own below it."""
    with tqdm(total=len(todo), desc=phase.ljust(24), unit="job", disable=not todo) as bar:
        running: list[Future[None]] = [pool.submit(_run, job, jobs) for job in todo]
        for done in as_completed(running):
            done.result()
            bar.update()


def _run(job: "Job", jobs: int) -> None:
    import torch

    torch.set_num_threads(1)
    worker = int(current_process().name.rpartition("-")[2])  # "SpawnProcess-2"
    with tqdm(total=job.total, desc=job.name.ljust(24), position=1 + worker % jobs, leave=False) as bar:
        for number in job.run():
            bar.update(number - bar.n)
