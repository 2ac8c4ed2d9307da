"""The wire format: what is written is read again, and hostile bytes are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.buildkit.control_messages import Definition, Exporter, SolveRequest, StatusResponse, VertexLog
from enisle.buildkit.gateway_messages import BridgeSolveRequest, ReturnRequest
from enisle.buildkit.protobuf import DecodeError
from enisle.buildkit.session_messages import Packet, PacketKind, Stat


def test_messages_are_read_as_they_were_written() -> None:
    request = SolveRequest(
        ref="r",
        attributes={"a": "b", "": "empty"},
        inputs={"z": Definition(operations=[b"op", b""])},
        exporters=[Exporter(kind="moby", attributes={"name": "x"})],
        entitlements=["network.host"],
    )
    assert SolveRequest.decode(request.encode()) == request
    stat = Stat(path="caf\udce9", mode=1 << 31 | 0o755, modified=-1, xattrs={"user.a": b"\0"})
    assert Packet.decode(Packet(stat=stat).encode()) == Packet(stat=stat)
    assert Packet(kind=PacketKind.STAT).encode() == b""


def test_bytes_are_those_of_the_format() -> None:
    log = VertexLog(vertex="v", stream=300, data=b"x")
    assert log.encode() == b"\x0a\x01v\x18\xac\x02\x22\x01x"
    unknown = b"\xf8\x07\x01" + b"\xfa\x07\x01z" + b"\xfd\x07" + bytes(4) + b"\xf9\x07" + bytes(8)
    assert VertexLog.decode(unknown + log.encode()) == log


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # no length
        b"\x0a\x05abc",  # ends too early
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a length beyond everything
        b"\xff" * 11,  # more than 64 bits
        b"\x0b\x0c",  # groups are not of this version of the format
        b"\x18",  # a number without digits
        b"\x08\x01",  # a number where a text is
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        VertexLog.decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for cls in (SolveRequest, StatusResponse, BridgeSolveRequest, ReturnRequest, Packet):
        try:
            cls.decode(data)
        except DecodeError:
            pass
