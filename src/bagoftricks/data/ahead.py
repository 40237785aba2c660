"""Work that threads do ahead of who takes its results, within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Iterable[T], work: Callable[[T], R], *, workers: int, most: int) -> Iterator[Future[R]]:
    """Yields each item's work in the order of the items; the first may still be at it.

    Args:
        items: taken one after the other, as there is room.
        work: called in the threads; what it raises is in its future.
        workers: threads.
        most: works under way, or done and not yet taken, at once, so that memory stays flat.
    """
    pool, waiting = ThreadPoolExecutor(workers, thread_name_prefix="ahead"), deque[Future[R]]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= most:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
