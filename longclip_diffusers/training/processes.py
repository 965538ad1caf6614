"""The processes of a run as `accelerate launch` or `torchrun` started them: which device, which number."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch

from ..errors import LongClipError
from .distributed import rank

__all__ = ["Process", "join_processes"]

# What accelerate sets for the ways of splitting a model that this trainer does not have.
REFUSED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
# One process may encode all pictures, or evaluate, while the others wait for its gradient; torch's is ten minutes.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Process:
    """This process's device and whether it is the one that writes and prints."""

    device: str
    is_first: bool


def join_processes(device: str = "auto") -> Process:
    """Choose the device; under a launcher, meet the other processes first (NCCL on CUDA, else gloo).

    Raises:
        LongClipError: no CUDA where it is asked for, or a launcher that wants the model split.
    """
    for variable, name in REFUSED.items():
        if _is_set(variable):
            raise LongClipError(
                f"{name} splits a model over processes, which this trainer does not do: a CLIP fits one device, and "
                "--micro-batch bounds the rest. Launch with plain multi-GPU (DDP) settings, or torchrun."
            )
    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        raise LongClipError(f"--device is {device!r}; choose auto, cpu or cuda.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise LongClipError("There is no CUDA device here. Give --device cpu, or install a torch build with CUDA.")
    launched_so = device == "auto" and _is_set("ACCELERATE_USE_CPU")  # accelerate launch --cpu
    on_cpu = device == "cpu" or launched_so or not torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Process("cpu" if on_cpu else device.replace("auto", "cuda"), True)
    from accelerate import PartialState

    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    return Process(str(state.device), rank() == 0)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1", "yes")
