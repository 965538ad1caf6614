"""`longclip evaluate detail`: what a model's pictures show of what their texts describe."""

from pathlib import Path

from tqdm.auto import tqdm

from .exits import quiet_libraries

__all__ = ["detail"]


def detail(
    *,
    model: Path | None = None,
    num_scenes: int = 200,
    seed: int = 0,
    json: Path = Path("outputs/detail.json"),
    plot: Path = Path("outputs/detail.png"),
    encoders: tuple[str, ...] = ("truncated", "windows_sentence", "long"),
    device: str = "cpu",
) -> None:
    """Detail recall by token position on unseen storybook scenes, for the stock encoder and the long one.

    Args:
        model: a storybook model; the bundled one if not given.
        num_scenes: scenes to draw, 2 or more.
        seed: of the scenes and of the noise.
        json: where the rows and the sha256 of the model's files go.
        plot: where the plot of recall against token position goes.
        encoders: truncated (stock diffusers), windows_sentence (stock encoder, 77-token windows of sentences), long.
        device: cpu or cuda.
    """
    quiet_libraries()
    from ..evaluation.detail import CHANCE, describe_scenes, draw_pictures, load_encoder, recall_rows, score
    from ..evaluation.report import hash_model, plot_recall, table, write_json
    from ..models import bundled
    from ..sidecar import read_generation

    folder = model or bundled()
    pairs = describe_scenes(num_scenes, seed=seed)
    pipes = {encoder: load_encoder(folder, encoder, device=device) for encoder in encoders}
    texts = [str(caption) for _, caption in pairs]
    generation = read_generation(folder)
    facts, rows = {}, []
    for encoder, pipe in pipes.items():
        pictures = draw_pictures(pipe, texts, generation, seed=seed)
        shown = tqdm(pictures, total=num_scenes, desc=encoder, unit="picture")
        facts[encoder] = score(pairs, list(shown))
        rows += recall_rows(encoder, facts[encoder])
    chance = recall_rows(CHANCE, facts[encoders[0]], chance=True)
    hashes = hash_model(folder)
    write_json(json, rows + chance, hashes, num_scenes=num_scenes, seed=seed)
    plot_recall(plot, facts, chance=sum(row.value for row in chance) / len(chance))
    print(table(rows + chance))
    print(f"UNet sha256 {hashes['unet/diffusion_pytorch_model.safetensors']}")
    print(f"Rows in {json}, plot in {plot}.")
