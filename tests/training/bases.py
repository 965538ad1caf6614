"""Models to fine-tune, as folders on disk: a whole CLIP, and the text encoders of an SDXL."""

from pathlib import Path

import toys

from longclip_diffusers.text_encoder import save_text_encoder

SENTENCES = ("the door is red.", "a boat lies there.", "the kite is blue!", "who lit the lamp?", "it was late.")


def clip(folder: Path, *, length: int = 77, seed: int = 0) -> Path:
    """A CLIPModel folder with its tokenizer."""
    toys.clip(length, seed=seed).save_pretrained(folder)
    toys.tokenizer(length).save_pretrained(folder)
    return folder


def sdxl_encoders(folder: Path) -> Path:
    """The text encoders and tokenizers of an SDXL: the second with a projection, and padded with "!"."""
    save_text_encoder(toys.text_encoder(), folder / "text_encoder")
    save_text_encoder(toys.text_encoder_with_projection(seed=5), folder / "text_encoder_2")
    toys.tokenizer().save_pretrained(folder / "tokenizer")
    second = toys.tokenizer()
    second.pad_token = "!"
    second.save_pretrained(folder / "tokenizer_2")
    return folder


def texts(file: Path, *, num_lines: int = 40) -> Path:
    """A text a line, of one to five sentences."""
    lines = [" ".join(SENTENCES[(row + word) % 5] for word in range(1 + row % 5)) for row in range(num_lines)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file
