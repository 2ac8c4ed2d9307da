"""Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding), for messages that are described as classes.

Each field is declared with its number; what is not declared is skipped, as the format asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK64 = (1 << 64) - 1
_DEPTH_LIMIT = 32
_KEY = "protobuf"
Some = TypeVar("Some", bound="Message")


class DecodeError(ValueError):
    """Bytes that are no such message."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a value is read and written. ``repeated``: a list of them. ``entry``: a map, whose entries are messages."""

    wire: int
    read: Callable[[Any, int], Any]
    write: Callable[[Any], Any]
    repeated: bool = False
    entry: bool = False


class Message:
    """A message. Subclasses are dataclasses whose fields are made by the functions below."""

    _by_number: ClassVar[dict[int, tuple[str, _Kind]]]

    @classmethod
    def decode(cls: type[Some], data: bytes | memoryview, depth: int = 0) -> Some:
        """The message that the bytes are. Raises DecodeError."""
        if depth > _DEPTH_LIMIT:
            raise DecodeError("messages are nested too deeply")
        table = _table(cls)
        found = cls()
        view = memoryview(data)
        position, end = 0, len(view)
        while position < end:
            tag, position = _varint(view, position)
            wire = tag & 7
            value, position = _value(view, position, wire)
            known = table.get(tag >> 3)
            if known is not None:
                _set(found, known[0], known[1], wire, value, depth)
        return found

    def encode(self) -> bytes:
        """The bytes of this message; fields with their default value are left out."""
        out: list[bytes] = []
        for number, (name, kind) in _table(type(self)).items():
            value = getattr(self, name)
            if not value:
                continue
            tag = _encoded(number << 3 | kind.wire)
            values = value.items() if kind.entry else value if kind.repeated else (value,)
            for one in values:
                written = kind.write(one)
                if kind.wire == _VARINT:
                    out.append(tag + _encoded(written))
                else:
                    out += (tag, _encoded(len(written)), written)
        return b"".join(out)


def _table(cls: type[Message]) -> dict[int, tuple[str, _Kind]]:
    if "_by_number" not in cls.__dict__:
        described = [(*one.metadata[_KEY], one.name) for one in fields(cls)]  # type: ignore[arg-type]
        cls._by_number = {number: (name, kind) for number, kind, name in described}
    return cls._by_number


def _set(found: Message, name: str, kind: _Kind, wire: int, value: Any, depth: int) -> None:
    if wire != kind.wire:
        if wire == _BYTES and kind.repeated:  # numbers in one packet
            position = 0
            while position < len(value):
                number, position = _varint(value, position)
                getattr(found, name).append(kind.read(number, depth))
            return
        raise DecodeError(f"the field {name} has the wrong wire type")
    read = kind.read(value, depth)
    if kind.entry:
        getattr(found, name)[read[0]] = read[1]
    elif kind.repeated:
        getattr(found, name).append(read)
    else:
        setattr(found, name, read)


def _value(view: memoryview, position: int, wire: int) -> tuple[Any, int]:
    if wire == _VARINT:
        return _varint(view, position)
    if wire == _BYTES:
        length, position = _varint(view, position)
    elif wire == _FIXED64:
        length = 8
    elif wire == _FIXED32:
        length = 4
    else:
        raise DecodeError(f"wire type {wire} is not known")
    end = position + length
    if end > len(view):
        raise DecodeError("a field ends after its message")
    return view[position:end], end


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    try:
        while True:
            byte = view[position]
            position += 1
            result |= (byte & 127) << shift
            if byte < 128:
                return result & _MASK64, position
            shift += 7
            if shift > 63:
                raise DecodeError("a number has more than 64 bits")
    except IndexError:
        raise DecodeError("a number is cut off") from None


def _encoded(number: int) -> bytes:
    number &= _MASK64
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _signed(number: int, _depth: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _read_text(value: memoryview, _depth: int) -> str:
    return bytes(value).decode("utf-8", "surrogateescape")  # names of files need be no UTF-8


def _write_text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


_NUMBER = _Kind(_VARINT, _signed, int)
_FLAG = _Kind(_VARINT, lambda value, _: bool(value), int)
_TEXT = _Kind(_BYTES, _read_text, _write_text)
_DATA = _Kind(_BYTES, lambda value, _: bytes(value), bytes)


def _many(kind: _Kind) -> _Kind:
    return _Kind(kind.wire, kind.read, kind.write, repeated=True)


def _field(number: int, kind: _Kind, default: Any) -> Any:
    return field(default=default, metadata={_KEY: (number, kind)})


def number(at: int) -> Any:
    """A signed number of 64 bits, an enumeration or an unsigned number of 32 bits."""
    return _field(at, _NUMBER, 0)


def flag(at: int) -> Any:
    """True or false."""
    return _field(at, _FLAG, False)


def text(at: int) -> Any:
    """A string; what is no UTF-8 is kept as lone surrogates."""
    return _field(at, _TEXT, "")


def data(at: int) -> Any:
    """Bytes."""
    return _field(at, _DATA, b"")


def texts(at: int) -> Any:
    """A list of strings."""
    return field(default_factory=list, metadata={_KEY: (at, _many(_TEXT))})


def datas(at: int) -> Any:
    """A list of bytes."""
    return field(default_factory=list, metadata={_KEY: (at, _many(_DATA))})


def one(at: int, cls: type[Message]) -> Any:
    """A message, or None."""
    return _field(at, _message(cls), None)


def many(at: int, cls: type[Message]) -> Any:
    """A list of messages."""
    return field(default_factory=list, metadata={_KEY: (at, _many(_message(cls)))})


def _message(cls: type[Message]) -> _Kind:
    def write(value: Message) -> bytes:
        return value.encode()

    return _Kind(_BYTES, lambda value, depth: cls.decode(value, depth + 1), write)


def text_map(at: int) -> Any:
    """A dictionary of strings."""
    return _map(at, _TEXT)


def data_map(at: int) -> Any:
    """A dictionary from strings to bytes."""
    return _map(at, _DATA)


def message_map(at: int, cls: type[Message]) -> Any:
    """A dictionary from strings to messages."""
    return _map(at, _message(cls))


def _map(at: int, kind: _Kind) -> Any:
    def read(value: memoryview, depth: int) -> tuple[str, Any]:
        key, found = "", kind.read(memoryview(b""), depth)
        position = 0
        while position < len(value):
            tag, position = _varint(value, position)
            part, position = _value(value, position, tag & 7)
            if tag & 7 == _BYTES and tag >> 3 == 1:
                key = _read_text(part, depth)
            elif tag & 7 == _BYTES and tag >> 3 == 2:
                found = kind.read(part, depth)
        return key, found

    def write(item: tuple[str, Any]) -> bytes:
        key, value = _write_text(item[0]), kind.write(item[1])
        return b"".join((b"\x0a", _encoded(len(key)), key, b"\x12", _encoded(len(value)), value))

    return field(default_factory=dict, metadata={_KEY: (at, _Kind(_BYTES, read, write, entry=True))})
