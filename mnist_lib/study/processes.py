"""Processes that end with their owner, however that ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from loky import ProcessPoolExecutor

from ..base.errors import RunError


@contextlib.contextmanager
def own_processes() -> Iterator[Callable]:
    """A function `call`: call(function, *args) returns function(*args) from a new process.

    When the block ends, or this process is killed, calls under way end at once: nobody would get
    their results, and their folders are free again. Raises RunError if a process is killed.
    """
    reader, writer = multiprocessing.Pipe(duplex=False)

    def call(function, *args):
        executor = ProcessPoolExecutor(1, initializer=_end_with_owner, initargs=(reader,))
        try:
            result = executor.submit(function, *args).result()
        except BrokenProcessPool:
            raise RunError("a run was killed, perhaps for want of memory") from None
        executor.shutdown()  # waits: a process killed while it ends leaves semaphores
        return result

    try:
        yield call
    finally:
        writer.close()


def _end_with_owner(reader: Connection) -> None:
    """End this process when its owner closes the other end of the pipe or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner handles Ctrl-C

    def watch():
        reader.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
