"""Files that are whole or not there: written aside, brought to the disk, renamed; one user each."""

import codecs
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import ParameterError, RunError

# Of a run: its epochs, its final weights, its curves.
HISTORY, WEIGHTS, CURVES = "history.json", "weights.safetensors", "curves.png"
ASIDE = ".part-"  # a folder's half-written files are in folders of this name
LOCK = ".lock"


def as_path(name: str, value: str | os.PathLike) -> Path:
    """`value` as a path, ~ expanded. Raises ParameterError, naming the parameter, if it is none."""
    try:
        folder = Path(value).expanduser()
        if "\n" in str(folder):
            raise ValueError("it has more than one line")
        os.stat(folder)  # refuses what no path can hold, such as a NUL
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{name} must be a path, got {value!r} ({error})") from None
    except OSError:
        pass  # a folder that is not there, or not to be looked into, is a path all the same
    return folder


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises RunError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """A text file, in UTF-8 or PowerShell's UTF-16, its line ends as they are.

    Raises RunError if it cannot be read.
    """
    content = read_bytes(path)
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # PowerShell's >
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise RunError(f"{path} is not a text file in UTF-8: save it as one") from None


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file aside, then rename it to `path`: whole or not at all.

    On the disk when this returns, a loss of power included. Makes the folder. Raises RunError
    if it cannot be written; what was there before then stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=ASIDE, ignore_cleanup_errors=True
        ) as aside:
            # The file's own name, since its ending may choose the format.
            part = Path(aside) / path.name
            write(part)
            _to_disk(part, os.O_RDWR)
            os.replace(part, path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from None
    with contextlib.suppress(OSError):  # not every file system has this for folders
        _to_disk(path.parent, os.O_RDONLY)


def _to_disk(path: Path, flags: int) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def cut_short(line: str) -> bool:
    """Whether a line is the beginning of a record, as a process that was killed leaves it."""
    try:
        json.loads(line)
    except ValueError:
        return line.startswith("{")
    return False


def append_line(path: Path, line: str) -> None:
    """Add a line of JSON to a file that may not be there; on the disk when this returns.

    What a process that was killed has left of a line is removed first. Makes the folder. Raises
    RunError if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            # Only then: another study may add a line of its own to this file just now.
            if content and not content.endswith(b"\n"):
                last = content.rfind(b"\n") + 1
                if cut_short(content[last:].decode("utf-8", "replace")):
                    file.truncate(last)
                else:
                    file.write(b"\n")  # a whole line: an editor has left out its end
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from None


def remove(path: Path) -> None:
    """Delete a file that may be gone already. Raises RunError if that is refused."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path} cannot be removed: {error.strerror}") from None


def check_writable(folder: Path) -> None:
    """Make the folder and try it. Raises RunError if it cannot be written or is in use."""
    with held(folder):
        probe = folder / ".writable"
        write_file(probe, lambda path: path.write_text(""))
        remove(probe)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other run out of `folder` meanwhile; sweep what a killed one left half-written.

    The system itself frees the lock of a process that ends, however it ends; two machines that
    share a folder may not see each other's. Raises RunError if another run holds the folder, or
    if it cannot be written.
    """
    from filelock import FileLock, Timeout  # takes a third of the library's import

    if os.path.isfile(folder):
        raise RunError(f"{folder} is a file, and a run needs a folder: name another as run_dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{folder} is in use by another run: wait for its end, choose another folder or, if no "
            f"other is running, remove {folder / LOCK}"
        ) from None
    except NotImplementedError:
        print(f"{folder} has no locks: take care that no other run uses it", file=sys.stderr)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}") from None
    try:
        for part in folder.glob(f"{ASIDE}*"):
            shutil.rmtree(part, ignore_errors=True)
        yield
    finally:
        lock.release()
