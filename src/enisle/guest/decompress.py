"""Taking kernels and modules out of their compressed forms."""

from __future__ import annotations

import ctypes
import ctypes.util
import lzma
import struct
import zlib

from enisle.errors import NotSupported

_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK_BYTES = 8 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ = b"\xfd7zXZ\0"
_GZIP = b"\x1f\x8b"
_SIGNATURE_MARK = b"~Module signature appended~\n"
_SIGNATURE_TAIL = struct.Struct(">8xI")  # struct module_signature: its last field is the signature's length


def vmlinux(bzimage: bytes) -> bytes:
    """The ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst).

    A guest that starts from it need not decompress itself, which under emulation takes longer than anything else.
    Raises NotSupported when this is no bzImage or compressed in an unknown way.
    """
    if len(bzimage) < 0x260 or bzimage[0x202:0x206] != b"HdrS":
        raise NotSupported("The guest's kernel is no bzImage.")
    sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (sectors + 1) * 512 + offset
    image = plain(bzimage[start : start + length])
    if image[:4] != b"\x7fELF":
        raise NotSupported("The guest's kernel is compressed in an unknown way.")
    return image


def module(data: bytes) -> bytes:
    """A kernel module as ELF, without the signature, whose check would cost a guest time at every boot."""
    image = plain(data)
    if image.endswith(_SIGNATURE_MARK):
        end = len(image) - len(_SIGNATURE_MARK)
        (length,) = _SIGNATURE_TAIL.unpack_from(image, end - _SIGNATURE_TAIL.size)
        image = image[: end - _SIGNATURE_TAIL.size - length]
    return image


def plain(data: bytes) -> bytes:
    """The data decompressed, whichever of gzip, xz, zstd and lz4 (legacy frames) it is; else as it is."""
    if data.startswith(_GZIP):
        return zlib.decompressobj(31).decompress(data)
    if data.startswith(_XZ):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(_ZSTD):
        return _zstd(data)
    if data.startswith(_LZ4_LEGACY):
        return _lz4_legacy(data)
    return data


def _zstd(data: bytes) -> bytes:
    import zstandard  # only kernels newer than Debian 12's need it

    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _lz4_legacy(data: bytes) -> bytes:
    """lz4's legacy frame: blocks of 8 MiB, each after its length; the kernel's own size follows the last."""
    library = ctypes.CDLL(ctypes.util.find_library("lz4") or "liblz4.so.1")
    decompress = library.LZ4_decompress_safe
    decompress.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    target = ctypes.create_string_buffer(_LZ4_BLOCK_BYTES)
    pieces: list[bytes] = []
    at = len(_LZ4_LEGACY)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if length == 0:
            break
        size = decompress(data[at : at + length], target, length, _LZ4_BLOCK_BYTES)
        if size < 0:
            raise NotSupported("The guest's kernel is damaged: an lz4 block cannot be read.")
        pieces.append(target.raw[:size])
        at += length
    return b"".join(pieces)
