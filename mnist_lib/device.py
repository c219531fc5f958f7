"""Which device to train on, how to set it up, and what to write down about it."""

import ctypes
import platform
from importlib import metadata

import torch

from . import __version__
from .errors import ParameterError


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, else MPS, else the CPU.

    Raises ParameterError where `name` is unknown or not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ParameterError(f"device takes one of auto, cpu, cuda, cuda:N, mps, not {name!r}")
    there = {"cpu": True, "mps": mps}.get(device.type)
    if there is None:
        there = cuda and (device.index or 0) < torch.cuda.device_count()
    if not there:
        raise ParameterError(f"device is {name!r}, but this machine has none; 'auto' takes what is")
    return device


def keep_freed_memory() -> None:
    """Let glibc's allocator keep freed blocks for the next step instead of returning them.

    Activations of several MB are otherwise unmapped and faulted in anew at every step. For the
    whole process; does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    # Parameters of mallopt(3): 32 MiB is the largest threshold that glibc takes.
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 512 << 20)
    mallopt(m_top_pad, 16 << 20)


def peak_memory() -> int:
    """The most memory, in bytes, that this process has had at once; 0 where Linux's /proc is not.

    Not getrusage's: its maximum is handed down from the parent process.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def environment(device: torch.device) -> dict:
    """Versions and machine, for a run's record: names and numbers only, no paths."""
    return {
        "mnist_lib": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux, or a sandbox
    return platform.processor() or platform.machine()
