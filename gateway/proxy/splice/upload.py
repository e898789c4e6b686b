"""No I/O: the body of a request on its way to the Actor, framed as its head says."""

from __future__ import annotations

from gateway.proxy.headers import CHUNKED
from gateway.proxy.splice.chunks import ChunkWalker

MAX_KEPT_BYTES = 64 * 1024
"""Of a request with its body, to be sent once more on a new connection."""


class Upload:
    """
    One body after the other: ``begin``, then ``feed`` until ``is_over``.

    What came is passed on as it is, chunks in one spelling and without what should go no further. *bare*: only the data
    of chunks, for who frames them himself.
    """

    __slots__ = ("_bare", "_left", "_walker", "is_over")

    def __init__(self, *, bare: bool = False) -> None:
        self._bare = bare
        self._left = 0
        self._walker: ChunkWalker | None = None
        self.is_over = True

    def begin(self, length: int) -> None:
        """A body of *length* bytes, more than none, or CHUNKED."""
        self.is_over = False
        if length == CHUNKED:
            self._walker = ChunkWalker(bare=self._bare)
        else:
            self._walker, self._left = None, length

    def feed(self, data: bytes, at: int = 0) -> tuple[list[bytes], int]:
        """
        What of ``data[at:]`` goes to the Actor, and where in *data* the body ends, or *data* does.

        Raises BadChunk.
        """
        if self._walker is not None:
            pieces, end = self._walker.feed(data, at)
            if self._walker.is_complete:
                self.is_over, self._walker = True, None
            return pieces, end
        end = min(len(data), at + self._left)
        self._left -= end - at
        self.is_over = self._left == 0
        if end == at:
            return [], end
        return [data if end - at == len(data) else data[at:end]], end
