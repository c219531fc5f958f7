"""The machine: its device, how it rounds, and the environment of a run."""

import contextlib
import functools
import hashlib
import platform

import torch
import torch.nn as nn
import torch.nn.functional as F

from . import __version__
from .errors import ParameterError, check


def pick_device(name: str | None = "auto") -> torch.device:
    """The device called `name`; for "auto" and None, the first of CUDA, MPS and CPU available."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name in ("auto", None):
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    valid = device is not None and device.type in ("cpu", "cuda", "mps")
    check("device", name, valid, "one of auto, cpu, cuda, cuda:N, mps")
    cuda = cuda and (device.index or 0) < torch.cuda.device_count()
    if not {"cpu": True, "cuda": cuda, "mps": mps}[device.type]:
        raise ParameterError(f"device is {name!r}, but this machine has none: use 'auto'")
    return device


def environment(device: torch.device) -> dict:
    """Machine and versions for a run's record: names and numbers only, no paths."""
    cpu = proc_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    cuda = device.type == "cuda"
    return {
        "machine": rounding() if device.type == "cpu" else cpu,
        "threads": torch.get_num_threads(),
        "device": f"cuda ({torch.cuda.get_device_name(device)})" if cuda else device.type,
        "processor": cpu,
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "mnist_lib": __version__,
    }


@functools.cache
def rounding() -> str:
    """How this machine's CPU rounds, as four hexadecimal digits; takes about 0.2 s.

    With the same digits, torch and number of threads, machines reproduce each other's runs to the
    bit. The digits hash the weights of a fixed net after 20 steps on fixed data, on one thread.
    """
    threads, kind = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng([]), torch.device("cpu"), torch.autocast("cpu", enabled=False):
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
        torch.set_default_dtype(kind)
    content = b"".join(weights.detach().numpy().tobytes() for weights in net.parameters())
    return hashlib.sha256(content).hexdigest()[:4]


def proc_value(file: str, name: str) -> str | None:
    """The value of `name` in a Linux /proc `file`; None on other systems and in sandboxes."""
    with contextlib.suppress(OSError), open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return None
