"""nftables transactions through libnftables (libnftables(3)), without starting a process."""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType
from typing import Self

_LIBRARY = "libnftables.so.1"


class NftablesError(OSError):
    """A transaction was refused (nothing of it was done), or nftables cannot be used here at all."""


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NftablesError(f"{_LIBRARY} cannot be loaded ({error}). Install the package libnftables1.") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("output", "error"):
        getattr(library, f"nft_ctx_buffer_{name}").argtypes = [ctypes.c_void_p]
        reader = getattr(library, f"nft_ctx_get_{name}_buffer")
        reader.argtypes = [ctypes.c_void_p]
        reader.restype = ctypes.c_char_p
    return library


class Nftables:
    """A connection to the nftables of the network namespace the calling thread is in when it is made.

    Safe to use from several threads: transactions take turns.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._turn = threading.Lock()
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftablesError(f"{_LIBRARY} gave no context: out of memory, or no netfilter in this kernel.")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._turn:
            if self._context:
                self._library.nft_ctx_free(self._context)
            self._context = None

    def run(self, script: str) -> str:
        """Carry out a script in nft's syntax (nft(8)) as one transaction; what it printed.

        NftablesError: nothing was changed. The call blocks for the time the kernel takes.
        """
        with self._turn:
            if not self._context:
                raise NftablesError("nftables is closed")
            failed = self._library.nft_run_cmd_from_buffer(self._context, script.encode())
            printed: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
            complaint: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftablesError(_reason(complaint.decode(errors="replace")))
        return printed.decode(errors="replace")


def _reason(complaint: str) -> str:
    """The first error of nft's message with the line of the script it is about, in one line."""
    lines = complaint.strip().splitlines()
    if not lines:
        return "nftables refused the transaction without a reason; does this kernel have nf_tables?"
    _, _, words = lines[0].partition("Error: ")
    quoted = f" in {lines[1].strip()!r}" if len(lines) > 1 else ""
    return f"nftables: {words or lines[0]}{quoted}"
