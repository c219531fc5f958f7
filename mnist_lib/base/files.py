"""Files written whole or not at all: aside, flushed to disk, renamed; and locks on folders."""

import codecs
import contextlib
import errno
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from .errors import ParameterError, RunError

# Files in a run's folder: its epochs, its final weights, its curves.
HISTORY, WEIGHTS, CURVES = "history.json", "weights.safetensors", "curves.png"
ASIDE = ".part-"  # prefix of the folders for half-written files
LOCK = ".lock"
PATIENCE = 60  # seconds that a study waits for another one, which adds a line to the same file
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # the start of what PowerShell's > writes
BLANK = "\0 \t\r\n"  # a power loss can leave NULs at a file's end
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
print_once = functools.cache(print)  # prints the same words only once on the same file


def as_path(name: str, value: str | os.PathLike) -> Path:
    """`value` as a path, ~ expanded; anything else raises ParameterError with the name."""
    try:
        path = Path(value).expanduser()
        if "\n" in str(path):
            raise ValueError("it has more than one line")
        with contextlib.suppress(OSError):  # the path need not exist, or be readable
            os.stat(path)  # a ValueError for what no path can contain, such as a NUL
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{name} must be a path, got {value!r} ({error})") from None
    return path


@contextlib.contextmanager
def _failing_as(sentence: str, lacking: str = "") -> Iterator[None]:
    """Raise RunError, the sentence and its reason, for OSError; print `lacking` if unsupported."""
    try:
        yield
    except OSError as error:
        if lacking and error.errno in UNSUPPORTED:
            return print_once(lacking, file=sys.stderr)
        raise RunError(f"{sentence}: {error.strerror or error}") from None


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises RunError if it cannot be read."""
    with _failing_as(f"{path} cannot be read"):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """A text file in UTF-8 or PowerShell's UTF-16, line ends unchanged; RunError if unreadable."""
    content = read_bytes(path)
    try:
        return content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise RunError(f"{path} is not a text file in UTF-8: save it as one") from None


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file aside, then rename it to `path`: whole or not at all.

    Creates the folder; returns once the file is on disk. RunError leaves an earlier file as it was.
    """
    with _failing_as(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=ASIDE, ignore_cleanup_errors=True) as aside:
            # The file's own name, since its suffix may choose the format.
            part = Path(aside) / path.name
            write(part)
            _to_disk(part, path.parent, os.O_RDWR)
            os.replace(part, path)
    with contextlib.suppress(OSError, RunError):  # Windows cannot open a folder
        _to_disk(path.parent, path.parent, os.O_RDONLY)


def _to_disk(path: Path, folder: Path, flags: int) -> None:
    file, sentence = os.open(path, flags), f"{folder} cannot be flushed to disk"
    try:
        with _failing_as(sentence, f"{sentence}: a power loss may cost what was written last"):
            os.fsync(file)
    finally:
        os.close(file)


def cut_short(line: str) -> bool:
    """Whether a line is the start of a record that a killed process left unfinished."""
    line = line.strip(BLANK)
    try:
        json.loads(line)
    except ValueError:
        return line.startswith("{")
    return False


def append_line(path: Path, line: str) -> None:
    """Append a line of JSON to a file, flushed to disk; creates the file and its folder.

    Replaces the part of a line that a killed process left. Raises RunError if it cannot write.
    """
    with _failing_as(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            if content.startswith(UTF16):
                raise OSError("it is in UTF-16: save it in UTF-8")
            # Touch nothing otherwise: another study may be adding a line to this file.
            if content and not content.endswith(b"\n"):
                last = content.rfind(b"\n") + 1
                if cut_short(content[last:].decode("utf-8", "replace")):
                    file.truncate(last)
                else:
                    file.write(b"\n")  # a whole line that an editor saved without its end, or NULs
            file.write(line.encode())
        _to_disk(path, path.parent, os.O_RDWR)


def remove(path: Path) -> None:
    """Delete a file, if it exists. Raises RunError if that fails."""
    with _failing_as(f"{path} cannot be removed"):
        path.unlink(missing_ok=True)


def check_writable(folder: Path, seconds: float = 0) -> None:
    """Make the folder and try to write to it. Raises RunError if that fails or it is in use."""
    with lock(folder, seconds):
        probe = folder / ".writable"
        write_file(probe, lambda path: path.write_text(""))
        remove(probe)


@contextlib.contextmanager
def lock(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Keep other runs out of `folder` inside the block; remove half-written files of a killed one.

    The system frees the lock when the process ends, however it ends. Machines that share a folder
    may not see each other's locks. Raises RunError if another run holds the lock for `seconds`.
    """
    from filelock import FileLock, Timeout  # a third of the library's import time

    if os.path.isfile(folder):
        raise RunError(f"{folder} is a file, not a folder: choose another folder")
    file = FileLock(folder / LOCK)
    lacking = f"{folder} has no locks: take care that no other run uses it"
    with _failing_as(f"{folder} cannot be written", lacking):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file.acquire(timeout=seconds)
        except Timeout:
            hint = f"wait for its end, use another folder or, if none runs, remove {folder / LOCK}"
            raise RunError(f"{folder} is in use by another run: {hint}") from None
        except NotImplementedError:  # filelock's word for ENOSYS, before 3.30
            print_once(lacking, file=sys.stderr)
    try:
        for part in folder.glob(f"{ASIDE}*"):
            shutil.rmtree(part, ignore_errors=True)
        yield
    finally:
        file.release()
