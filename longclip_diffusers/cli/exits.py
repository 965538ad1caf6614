"""How a command ends: exit code, one line for an error, one line for a warning of ours, silence for the rest."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from ..errors import LongClipError, PromptSyntaxError

__all__ = ["UsageError", "exit_code", "quiet_libraries"]

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended


class UsageError(Exception):
    """Options that do not go together: exit code 2."""


def exit_code(program: str, work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run `work` and say how it went: its own code (None is 0), 1 for an error, 2 for wrong usage.

    An error is one line on stderr (one of a prompt's syntax three, which show the place), with `debug` its traceback.
    """
    # Threads that wait in a loop make a small model some eighty times slower as soon as another process is at work.
    # OpenMP reads this when torch is imported, which is still to come.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, TextIOWrapper):  # a file on Windows may not take every letter of a path or a prompt
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _short_warnings(program):
            return work() or 0
    except KeyboardInterrupt:
        return _complain(program, "interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        elif isinstance(error, UsageError):
            _complain(program, f"{error} See {program} --help.")
        elif isinstance(error, PromptSyntaxError):
            print(f"{program}: {error}", file=sys.stderr)
        elif isinstance(error, LongClipError):
            _complain(program, str(error))
        else:  # a library's error, or a fault of ours: its name helps, and so does the way to the whole of it
            _complain(program, f"{type(error).__name__}: {error} (--debug shows where)")
        return 2 if isinstance(error, UsageError) else 1


def quiet_libraries(*, debug: bool = False) -> None:
    """Silence what transformers, diffusers and the hub say of their own work; downloads keep their progress bars."""
    if debug:
        return
    import huggingface_hub
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    import diffusers  # later than the above: it makes transformers warn of torchvision while it is imported

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    huggingface_hub.utils.logging.set_verbosity_error()
    huggingface_hub.utils.enable_progress_bars()


def _complain(program: str, message: str, code: int = 1) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return code


@contextmanager
def _short_warnings(program: str) -> Iterator[None]:
    def show(message: Warning | str, *rest: object, **more: object) -> None:
        _complain(program, f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations and the like, which are for developers
        warnings.filterwarnings("default", category=UserWarning, module=r"longclip_diffusers|__main__")
        warnings.showwarning = show  # the documented way to redirect them; catch_warnings puts the old one back
        yield
