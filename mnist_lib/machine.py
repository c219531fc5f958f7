"""The machine: its device, its memory, how it rounds, its processes; and this version."""

import contextlib
import ctypes
import functools
import hashlib
import multiprocessing
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

import torch
import torch.nn as nn
import torch.nn.functional as F
from joblib.externals.loky import ProcessPoolExecutor

from .errors import ParameterError, RunError, check

__version__ = "1.0.0"


def pick_device(name: str | None = "auto") -> torch.device:
    """The device called `name`; "auto" and None take CUDA, else MPS, else the CPU.

    Raises ParameterError if `name` is unknown or not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name in ("auto", None):
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    known = device is not None and device.type in ("cpu", "cuda", "mps")
    check("device", name, known, "one of auto, cpu, cuda, cuda:N, mps")
    there = {"cpu": True, "mps": mps}.get(device.type)
    if there is None:
        there = cuda and (device.index or 0) < torch.cuda.device_count()
    if not there:
        raise ParameterError(f"device is {name!r}, but this machine has none; 'auto' takes what is")
    return device


def keep_freed_memory(device: torch.device) -> None:
    """Let glibc's malloc keep freed blocks for the next step, in the whole process, for good.

    Otherwise activations of several MB are unmapped and faulted in again at every step. Does
    nothing for another device than the CPU, or with another C library.
    """
    if device.type != "cpu" or not _has_glibc():
        return
    mallopt = ctypes.CDLL(None).mallopt
    # Parameters of mallopt(3): 32 MiB is the largest threshold that glibc takes.
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 512 << 20)
    mallopt(m_top_pad, 128 << 20)  # room for large blocks to lie together; not resident until used


def return_freed_memory() -> None:
    """Return all freed memory to the system at once, so fragments do not add up.

    Takes some 10 ms: for the end of an epoch, not of a step.
    """
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def environment(device: torch.device) -> dict:
    """Machine and versions, as columns of a run's record: names and numbers only, no paths."""
    cuda = device.type == "cuda"
    return {
        "machine": rounding() if device.type == "cpu" else _processor(),
        "threads": torch.get_num_threads(),
        "device": f"cuda ({torch.cuda.get_device_name(device)})" if cuda else device.type,
        "processor": _processor(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "mnist_lib": __version__,
    }


@functools.cache
def rounding() -> str:
    """How this machine's CPU rounds: four hexadecimal digits.

    Machines of the same name, with the same torch and number of threads, make the same runs to
    the bit. The digits are a hash of the weights after 20 steps, with one thread, of a net and
    data that are fixed here once and for all. Takes about 0.2 s; torch's random state stays.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = nn.Sequential(
                *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
                *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.ReLU()),
                *(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 10, 1)),
            )
        images = (torch.arange(32 * 784) * 0.618 % 1).view(32, 1, 28, 28)
        labels = torch.arange(32) % 10
        for _ in range(20):
            loss = F.cross_entropy(net(images).mean((2, 3)), labels)
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for weights, gradient in zip(net.parameters(), gradients, strict=True):
                    weights -= 0.05 * gradient
    finally:
        torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for weights in net.parameters():
        digest.update(weights.detach().numpy())
    return digest.hexdigest()[:4]


def _processor() -> str:
    return _proc_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _proc_value(file: str, name: str) -> str | None:
    """What Linux tells of `name` in a file of /proc; None elsewhere, or in a sandbox."""
    with contextlib.suppress(OSError), open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return None


def peak_memory() -> int | None:
    """The most memory, in MB, that this process has had so far; None on Windows.

    Of a process that shares libraries with others, each counts them as its own.
    """
    if peak := _proc_value("/proc/self/status", "VmHWM"):  # in kB, which are KiB
        return round(int(peak.split()[0]) * 1024 / 1e6)
    try:
        import resource
    except ImportError:
        return None
    # KiB; bytes on macOS. Linux counts the peak of the process that started this one, too.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if platform.system() == "Darwin" else 1024) / 1e6)


@contextlib.contextmanager
def own_processes() -> Iterator[Callable]:
    """A function `call`: call(function, *args) is function(*args), made by a new process.

    When the block is left, or this process is killed, calls under way end at once: nobody would
    get their results, and their folders are free again. Raises RunError if a process is killed.
    """
    reader, writer = multiprocessing.Pipe(duplex=False)

    def call(function, *args):
        executor = ProcessPoolExecutor(1, initializer=_end_with_owner, initargs=(reader,))
        try:
            result = executor.submit(function, *args).result()
        except BrokenProcessPool:
            raise RunError("a run was killed, perhaps for want of memory") from None
        executor.shutdown()  # waits for the process: killed while it ends, it leaves semaphores
        return result

    try:
        yield call
    finally:
        writer.close()


def _end_with_owner(reader: Connection) -> None:
    """End this process when its owner closes the other end of the pipe, or is killed.

    Ctrl-C is ignored: the owner answers it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        reader.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
