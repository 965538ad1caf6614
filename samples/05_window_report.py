"""How a chapter is cut into windows, alone and behind context; draws nothing: 05_window_report.py [OUTPUT]"""

import sys
from pathlib import Path

from longclip_diffusers import load_tokenizer, plan_windows

tokenizer = load_tokenizer()
text = (Path(__file__).with_name("chapters") / "01_the_letter.txt").read_text(encoding="utf-8")

report = "\n\n".join(
    [
        f"Windows of 248, each read alone:\n{plan_windows(text, tokenizer)}",
        f"Windows of 77, as in stock Stable Diffusion:\n{plan_windows(text, tokenizer, window=77)}",
        f"Sentences behind the earlier ones they need:\n{plan_windows(text, tokenizer, context='related')}",
    ]
)
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_text(report + "\n", encoding="utf-8")
print(report)
