"""Memory of this process: how malloc keeps and returns it, and its peak."""

import ctypes
import platform

import torch

from .machine import proc_value


def keep_freed_memory(device: torch.device) -> None:
    """If on the CPU, make glibc's malloc keep freed blocks, in the whole process, for good."""
    # Otherwise every step unmaps activations of several MB and faults them in again.
    if device.type != "cpu" or not _has_glibc():
        return
    # mallopt(3): M_MMAP_THRESHOLD, of which glibc accepts 32 MiB at most, M_TRIM_THRESHOLD, and
    # M_TOP_PAD, which keeps large blocks contiguous and is not resident until used.
    for parameter, mib in ((-3, 32), (-1, 512), (-2, 128)):
        ctypes.CDLL(None).mallopt(parameter, mib << 20)


def return_freed_memory() -> None:
    """Return freed memory to the system, so that fragments do not add up; takes some 10 ms."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def peak_memory() -> int | None:
    """Peak memory of this process in MB, shared libraries included; None on Windows."""
    if peak := proc_value("/proc/self/status", "VmHWM"):  # in kB, which are KiB
        return round(int(peak.split()[0]) * 1024 / 1e6)
    try:
        import resource
    except ImportError:
        return None
    # In KiB; on macOS in bytes. On Linux it includes the peak of the parent process.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if platform.system() == "Darwin" else 1024) / 1e6)
