"""The codewords of many recipients, hashed by several processes where that pays.

A codeword is a stretch of SHAKE-128, and Python's digest of it holds the interpreter's lock, so
that threads gain nothing. The processes are forked: the master key reaches them in memory and is
never written or sent anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from pgbalise.marking.codes import codewords
from pgbalise.marking.keys import MasterKey
from pgbalise.tracing.decoding import Words

_BLOCK_BYTES = 1 << 21
_BLOCK_ROWS = 4096
_WORTH_FORKING = 1 << 26
"""Bytes of packed codewords (sixteen times as many are hashed, at about 450 MB/s)."""


def stream_words(
    key: MasterKey,
    names: Sequence[str],
    epoch: int,
    thresholds: NDArray[np.uint16],
    workers: int = 1,
) -> Words:
    """Return what makes the codewords of ``names``, or the beginnings of them, in blocks.

    ``workers``: processes to use when there is much to do; 1 keeps to this one, as a PostgreSQL
    backend must.
    """

    def words(wanted: int, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        task = (key, names, epoch, thresholds[: 8 * wanted])
        size = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, wanted)))
        blocks = [rows[at : at + size] for at in range(0, len(rows), size)]
        if workers < 2 or len(rows) * wanted < _WORTH_FORKING:
            for block in blocks:
                yield _make(*task, block)
            return
        with ProcessPoolExecutor(
            workers, get_context("fork"), initializer=_begin, initargs=task
        ) as pool:
            waiting: deque[Future[NDArray[np.uint8]]] = deque()
            for block in blocks:
                waiting.append(pool.submit(_made, block))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    return words


def _make(
    key: MasterKey,
    names: Sequence[str],
    epoch: int,
    thresholds: NDArray[np.uint16],
    rows: NDArray[np.int64],
) -> NDArray[np.uint8]:
    return codewords(key, [names[row] for row in rows], epoch, thresholds)


_task: list[tuple[MasterKey, Sequence[str], int, NDArray[np.uint16]]] = []
"""What a worker process works for; empty elsewhere."""


def _begin(
    key: MasterKey, names: Sequence[str], epoch: int, thresholds: NDArray[np.uint16]
) -> None:
    _task[:] = [(key, names, epoch, thresholds)]


def _made(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return _make(*_task[0], rows)
