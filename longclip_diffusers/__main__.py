"""`python -m longclip_diffusers` is `longclip`, for launchers: `torchrun -m longclip_diffusers train ...`."""

import sys

from .cli.longclip import main

if __name__ == "__main__":
    sys.exit(main())
