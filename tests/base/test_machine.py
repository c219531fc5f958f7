"""The right device is chosen, memory is measured, and a CPU's rounding has a name."""

import os
import platform
import re
import subprocess
import sys

import pytest
import torch

from mnist_lib import ParameterError, environment, pick_device
from mnist_lib.base.machine import rounding
from mnist_lib.base.memory import peak_memory
from mnist_lib.study.processes import own_processes


def python(code, **environment):
    """Run the code in a new process and return what it prints."""
    command, env = [sys.executable, "-c", code], os.environ | environment
    return subprocess.check_output(command, env=env, text=True)


@pytest.mark.parametrize(
    ("cuda", "mps", "first"),
    [(True, False, "cuda"), (False, True, "mps"), (True, True, "cuda"), (False, False, "cpu")],
)
def test_devices(monkeypatch, cuda, mps, first):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device() == pick_device("auto") == pick_device(None) == torch.device(first)


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x", 3.5])
def test_unknown_devices(name):
    with pytest.raises(ParameterError, match="device must be one of auto, cpu, cuda, cuda:N, mps"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda:99"] if torch.cuda.is_available() else ["cuda", "cuda:1"])
def test_missing_devices(name):
    with pytest.raises(ParameterError, match=f"device is '{name}', but this machine has none"):
        pick_device(name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept on glibc alone")
def test_freed_memory_is_kept_until_returned():
    code = (
        "import torch; from pathlib import Path; from mnist_lib.base import memory\n"
        "def resident(): return int(Path('/proc/self/statm').read_text().split()[1])\n"
        "memory.keep_freed_memory(torch.device('cpu'))\n"
        "blocks = [torch.ones(1 << 18) for _ in range(100)]; full = resident()\n"
        "del blocks; kept = resident()\n"
        "memory.return_freed_memory(); print(full - kept, kept - resident())"
    )
    at_once, later = (
        int(pages) * os.sysconf("SC_PAGESIZE") >> 20 for pages in python(code).split()
    )
    assert at_once < 10  # MiB, of the 100 that were freed
    assert later > 90


@pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere the owner's peak counts, too")
def test_peak_memory_is_the_processs_own():
    torch.ones(250_000_000)  # 1 GB
    assert peak_memory() > 1000
    with own_processes() as call:
        assert 100 < call(peak_memory) < 900


def test_what_a_process_raises_is_raised():
    with own_processes() as call, pytest.raises(ParameterError, match="device must be one of"):
        call(pick_device, "tpu")


def test_rounding_leaves_torch_as_it_was():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    rounding.cache_clear()
    columns = environment(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert columns["threads"] == torch.get_num_threads() == threads
    assert re.fullmatch("[0-9a-f]{4}", columns["machine"])
    assert (columns["device"], columns["torch"]) == ("cpu", torch.__version__)


def test_rounding_takes_nothing_from_what_is_set():
    name = rounding()
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", torch.bfloat16):
            assert rounding.__wrapped__() == name
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("threads", "capability"), [(1, None), (2, None), (1, "default")])
def test_rounding_of_another_process(threads, capability):
    """The name is the same for any number of threads, and another if the CPU rounds otherwise."""
    if capability and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        pytest.skip("this CPU has one way only")
    code = (
        f"import torch, mnist_lib.base.machine as machine; torch.set_num_threads({threads});"
        f"torch.manual_seed({threads}); print(machine.rounding(), torch.get_num_threads())"
    )
    name, left = python(code, **{"ATEN_CPU_CAPABILITY": capability} if capability else {}).split()
    assert (name == rounding()) is (capability is None)
    assert int(left) == threads
