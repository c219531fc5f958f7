"""Processes that do the work of another, and end with it."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def pool(count: int) -> ProcessPoolExecutor:
    """`count` new processes that share nothing with this one and end when it does, however it ends.

    The standard library's own would outlive a process that is killed: finish their work, in a
    folder that nobody else may use until then, and wait for more for ever.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, spawn, initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
