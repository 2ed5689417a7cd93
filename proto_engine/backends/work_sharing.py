"""Work for plain Python threads: what it calls lets go of the GIL.

numba's own threading layers are not used. The one that is always there ends the process when two Python threads
enter it at once, and OpenMP's does not survive a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Worker = TypeVar("Worker", bound=Callable[[int], None])


def share(num_items: int, threads: int, make_worker: Callable[[], Worker]) -> list[Worker]:
    """Call workers, one a thread, with the items' numbers; each item goes to whoever is free."""
    workers = [make_worker() for _ in range(max(1, min(threads, num_items)))]
    numbers = iter(range(num_items))
    stop = threading.Event()

    def work(worker: Worker) -> None:
        try:
            for item in numbers:
                if stop.is_set():
                    return
                worker(item)
        except BaseException:  # the others stop after their item
            stop.set()
            raise

    if len(workers) == 1:
        work(workers[0])
        return workers
    with ThreadPoolExecutor(len(workers) - 1) as executor:
        others = [executor.submit(work, worker) for worker in workers[1:]]
        try:
            work(workers[0])
            for other in others:
                other.result()
        except BaseException:  # Ctrl-C arrives in this thread, and may find it waiting
            stop.set()
            raise
    return workers
