"""As much of Kafka's wire protocol as the fault proxy must understand: which request is which, whose
transaction it belongs to, and where a broker tells its address."""

import struct
from dataclasses import dataclass
from typing import Final

PRODUCE: Final = 0
METADATA: Final = 3
FIND_COORDINATOR: Final = 10
INIT_PRODUCER_ID: Final = 22
END_TXN: Final = 26
TXN_OFFSET_COMMIT: Final = 28
DESCRIBE_CLUSTER: Final = 60

TELLS_ADDRESS: Final = frozenset({METADATA, FIND_COORDINATOR, DESCRIBE_CLUSTER})
TRANSACTIONAL: Final = frozenset({PRODUCE, INIT_PRODUCER_ID, END_TXN, TXN_OFFSET_COMMIT})
_FLEXIBLE_FROM: Final = {PRODUCE: 9, INIT_PRODUCER_ID: 2, END_TXN: 3, TXN_OFFSET_COMMIT: 3}

ILLEGAL_GENERATION: Final = 22


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request frame (without its length)."""

    api: int
    version: int
    correlation: int
    transactional_id: str = ""
    commit: bool = False  # EndTxn only


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = frame[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _text(frame: bytes, at: int, compact: bool) -> tuple[str, int]:
    """A nullable string and where it ends."""
    if compact:
        size, at = _varint(frame, at)
        size -= 1
    else:
        (size,) = struct.unpack_from(">h", frame, at)
        at += 2
    size = max(size, 0)
    return frame[at : at + size].decode(), at + size


def read_request(frame: bytes) -> Request:
    """The head of a request; the transactional id where the request has one.

    A transactional id stands first in the body of every request that the proxy looks into.
    """
    api, version, correlation = struct.unpack_from(">hhi", frame)
    if api not in TRANSACTIONAL:
        return Request(api, version, correlation)
    flexible = version >= _FLEXIBLE_FROM[api]
    _, at = _text(frame, 8, compact=False)  # the client id is never compact
    if flexible:
        at += 1  # no tagged fields in the header
    name, at = _text(frame, at, flexible)
    commit = api == END_TXN and frame[at + 10] == 1
    return Request(api, version, correlation, name, commit)


def error_code(request: Request, response: bytes) -> int:
    """The error of an EndTxn or InitProducerId response (without its length)."""
    flexible = request.version >= _FLEXIBLE_FROM[request.api]
    (code,) = struct.unpack_from(">h", response, 4 + flexible + 4)
    return int(code)


def with_port(response: bytes, host: str, old: int, new: int) -> bytes:
    """The response with the broker's address replaced by the proxy's: same host, other port."""
    name = host.encode()
    return response.replace(name + struct.pack(">i", old), name + struct.pack(">i", new))


def framed(body: bytes) -> bytes:
    """A frame ready to be written."""
    return struct.pack(">i", len(body)) + body


def with_offset_errors(request: Request, response: bytes, code: int) -> bytes:
    """A TxnOffsetCommit response in which every partition has this error.

    Raises:
        ValueError: a version that clients of this suite do not speak.
    """
    if request.version < _FLEXIBLE_FROM[TXN_OFFSET_COMMIT]:
        raise ValueError(f"TxnOffsetCommit v{request.version} is not understood")
    changed = bytearray(response)
    topics, at = _varint(response, 4 + 1 + 4)
    for _ in range(topics - 1):
        _, at = _text(response, at, compact=True)
        partitions, at = _varint(response, at)
        for _ in range(partitions - 1):
            struct.pack_into(">h", changed, at + 4, code)
            at += 4 + 2 + 1
        at += 1
    return bytes(changed)
