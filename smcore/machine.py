"""What a network is computed on: processor cores or graphics cards, one process or several."""

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed


def precision(setting):
    """``bfloat16`` where `setting` is ``auto`` and the machine has units for it, else ``float32``.

    Without such units, bfloat16 costs accuracy and gains no time.
    """
    if torch.cuda.is_available():
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        path = Path("/proc/cpuinfo")
        flags = path.read_text().split() if path.exists() else []
        has_units = "amx_bf16" in flags or "avx512_bf16" in flags
    return "bfloat16" if setting == "auto" and has_units else "float32"


def layout_of(chosen):
    """Layout of images in memory that is fast in this precision: in float32 channels come first."""
    return torch.channels_last if chosen == "bfloat16" else torch.contiguous_format


def autocast_to(chosen):
    """Context that computes in this precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=chosen == "bfloat16")


@dataclass(frozen=True)
class Workers:
    """The processes that share a training, each with its device."""

    rank: int  # that of the process which writes and reports is 0
    count: int
    device: torch.device

    @classmethod
    @contextmanager
    def gathered(cls):
        """This process alone, or all that torchrun started."""
        rank, local = (int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
        count, device = int(os.environ.get("WORLD_SIZE", 1)), torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
            torch.backends.cudnn.allow_tf32 = False  # float32 shall mean float32
        with ExitStack() as stack:
            if count > 1:
                distributed.init_process_group("gloo" if device.type == "cpu" else "nccl")
                stack.callback(distributed.destroy_process_group)
            yield cls(rank, count, device)

    @property
    def machine(self):
        """What they compute on, in words."""
        if self.device.type == "cuda":
            return f"{self.count} x {torch.cuda.get_device_name(self.device)}"
        cores = self.count * torch.get_num_threads()
        return f"{cores} processor core{'s' if cores > 1 else ''}"

    def share(self, indices):
        """Those of the indices that are for this process."""
        return indices[self.rank :: self.count]

    def total(self, value):
        """Sum of a number over the processes."""
        if self.count > 1:
            value = torch.tensor(value, dtype=torch.float64, device=self.device)
            distributed.all_reduce(value)
        return float(value)

    def wait(self):
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()
