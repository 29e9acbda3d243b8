"""The records on the wire, one typed dictionary per Avro schema in `schemas/`.

Typed dictionaries, because fastavro reads and writes dictionaries: a class per record would cost
a copy each way on the message path (docs/decisions/ says how much). Every time is in milliseconds
since the epoch, UTC. `tests/test_architecture.py` holds these and the schemas together.
"""

from typing import Final, Literal, TypedDict

RECORD_VERSION: Final = 1

Priority = Literal["urgent", "normal", "bulk"]
PRIORITIES: Final[tuple[Priority, ...]] = ("urgent", "normal", "bulk")
OnDoubt = Literal["resend", "wait"]
Success = Literal["accepted", "delivered", "read"]


class Recipient(TypedDict):
    """Who a request is for: at least one of id, phone or email."""

    id: str | None
    phone: str | None
    email: str | None
    country: str | None


class Content(TypedDict):
    """What is said, the same for every channel."""

    text: str | None
    subject: str | None
    html: str | None


class RequestStep(TypedDict):
    """One step of a route that a caller spelled out."""

    channel: str
    window_s: float | None
    success: str | None


class SendRequest(TypedDict):
    """A message as a client asks for it (`intake`, `intake.bulk`); Avro or JSON."""

    record_version: int
    tenant: str | None
    idempotency_key: str | None
    to: Recipient
    content: Content
    route: list[RequestStep] | None
    priority: str
    category: str
    campaign: str | None
    labels: dict[str, str]
    deadline: int | None
    sequence: str | None
    on_doubt: str | None


class ProfileUpdate(TypedDict):
    """What a client says of a recipient (`recipients`)."""

    record_version: int
    tenant: str | None
    to: Recipient
    preference: list[str]


class Profile(TypedDict):
    """A recipient's profile as of now (`profiles`)."""

    record_version: int
    tenant: str
    recipient_key: str
    phone: str | None
    email: str | None
    country: str | None
    preference: list[str]
    updated_at: int


class Source(TypedDict):
    """Where a request was read; tells a repeat of ours from a repeat of the caller's."""

    topic: str
    partition: int
    offset: int


class Step(TypedDict):
    """One resolved step of a route."""

    channel: str
    window_ms: int
    success: str


class Message(TypedDict):
    """A request that passed accept (`accepted.<lane>`)."""

    record_version: int
    tenant: str
    message_id: str
    recipient_key: str
    idempotency_hash: str | None
    source: Source
    accepted_at: int
    priority: str
    category: str
    campaign: str | None
    labels: dict[str, str]
    to: Recipient
    country: str
    content: Content
    route: list[RequestStep] | None
    deadline: int
    sequence: str | None
    on_doubt: str
    replay_of: str | None


class Command(TypedDict):
    """One step handed to dispatch (`send.<channel>.<lane>`)."""

    record_version: int
    tenant: str
    message_id: str
    recipient_key: str
    command_id: str
    step: int
    try_no: int
    key_no: int
    channel: str
    address: str
    content: Content
    country: str
    category: str
    campaign: str | None
    priority: str
    on_doubt: str
    window_ms: int
    expires_at: int
    accepted_at: int
    order: int


class Attempt(TypedDict):
    """One hand-over of a command to one provider, as events list it."""

    attempt_id: str
    provider: str
    requests: int
    started_at: int
    latency_ms: int
    result: str
    error_class: str | None
    code: str | None
    provider_message_id: str | None
    cost: float
    currency: str
    in_doubt: bool
    resent: bool


class Event(TypedDict):
    """What happened to a message (`dispatched`, `failed`, `delivered`, `read`, `timed-out`,
    `late-receipts`, `rejected`). No content and no address."""

    record_version: int
    event_id: str
    kind: str
    tenant: str
    message_id: str
    recipient_key: str
    command_id: str | None
    step: int
    try_no: int
    occurred_at: int
    accepted_at: int | None
    channel: str
    provider: str
    country: str
    priority: str
    category: str
    campaign: str | None
    labels: dict[str, str]
    result: str
    error_class: str | None
    code: str | None
    reason: str | None
    field: str | None
    retry_at: int | None
    provider_message_id: str | None
    provider_event_id: str | None
    latency_ms: int
    cost: float
    currency: str
    attempts: list[Attempt]
    origin: str
    in_doubt: bool
    resent: bool
    blind: bool
    reached_before: bool
    source: Source | None


class Outcome(TypedDict):
    """The one final word on a message (`outcomes`)."""

    record_version: int
    event_id: str
    tenant: str
    message_id: str
    recipient_key: str
    status: str
    reason: str
    channel: str
    provider: str
    step: int
    steps_tried: int
    attempts: int
    country: str
    priority: str
    category: str
    campaign: str | None
    labels: dict[str, str]
    accepted_at: int
    occurred_at: int
    latency_ms: int
    cost: float
    currency: str
    in_doubt: bool
    resent: bool
    replay_of: str | None


class Callback(TypedDict):
    """A provider's webhook as it came (`callbacks`), verified, without credentials."""

    record_version: int
    tenant: str
    callback_id: str
    provider: str
    received_at: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Reference(TypedDict):
    """A provider's own id and the reference that it stands for (`references`)."""

    record_version: int
    provider: str
    provider_message_id: str
    reference: str
    tenant: str
    message_id: str
    recorded_at: int


class Receipt(TypedDict):
    """What a provider said of an attempt, parsed; waits in `unmatched` for its reference when the
    provider names only its own id."""

    record_version: int
    tenant: str
    provider: str
    kind: str
    reference: str | None
    provider_message_id: str | None
    provider_event_id: str
    error_class: str | None
    code: str | None
    occurred_at: int
    received_at: int
    country: str
    callback_id: str
    source: Source


class DeadLetter(TypedDict):
    """What cannot be processed, or has no step left (`dead-letter`), with everything needed to
    understand and replay it."""

    record_version: int
    dead_letter_id: str
    tenant: str
    message_id: str | None
    recipient_key: str | None
    stage: str
    category: str
    reason: str
    error_class: str | None
    detail: str
    channel: str
    provider: str
    priority: str
    occurred_at: int
    source: Source
    message: Message | None
    attempts: list[Attempt]
    raw_key: bytes | None
    raw_value: bytes | None


class Suppression(TypedDict):
    """An address that must not be written to (`suppressions`)."""

    record_version: int
    tenant: str
    address_hash: str
    channel: str
    category: str
    source: str
    recorded_at: int
    expires_at: int | None


class Progress(TypedDict):
    """How far a task of receipts has listened (`progress`): everything appended to its part of
    `callbacks` before `callbacks_through`, and to `unmatched` and `references` before
    `joined_through`, has become events."""

    record_version: int
    tenant: str
    stage: str
    partition: int
    callbacks_through: int
    joined_through: int


class JournalEntry(TypedDict):
    """What dispatch is about to write to a socket (`dispatch.journal`)."""

    command_id: str
    attempt_id: str
    provider: str
    key_no: int
    topic: str
    partition: int
    offset: int
    kind: str


class JournalRecord(TypedDict):
    """One turn of one task: entries of kind `send`, or `not_sent` that take one back."""

    record_version: int
    tenant: str
    transactional_id: str
    entries: list[JournalEntry]


class StepState(TypedDict):
    """What fallback knows of one step of an open message."""

    channel: str
    window_ms: int
    success: str
    status: str
    tries: int
    key_no: int
    dispatched_at: int | None
    provider: str
    reason: str
    result: str
    commands: int
    alive: int
    negatives: int
    negative_class: str
    negative_code: str
    cost: float


class MessageState(TypedDict):
    """A message's life in fallback's state (`fallback.changelog`, keys `m:<message_id>`)."""

    record_version: int
    tenant: str
    message_id: str
    recipient_key: str
    source: Source
    status: str
    accepted_at: int
    accepted_offset: int
    deadline: int
    priority: str
    category: str
    campaign: str | None
    labels: dict[str, str]
    country: str
    sequence: str | None
    on_doubt: str
    replay_of: str | None
    traceparent: str | None
    tracestate: str | None
    step: int
    steps: list[StepState]
    command_id: str | None
    command_expires_at: int | None
    waiting: str
    due_at: int | None
    due_for: str
    seen: list[str]
    attempts: list[Attempt]
    delivered_channel: str
    outcome: str
    outcome_reason: str
    settled_at: int | None
    cost: float
    currency: str
    in_doubt: bool
    resent: bool


class ParkedReceipts(TypedDict):
    """Receipts that came before their reference (`receipts.changelog`, keys `p:`)."""

    record_version: int
    tenant: str
    parked_at: int
    receipts: list[Receipt]


class KnownReference(TypedDict):
    """A reference that receipts remembers (`receipts.changelog`, keys `r:`)."""

    record_version: int
    tenant: str
    reference: str
    forget_at: int


class Ledger(TypedDict):
    """A task's books, written with each transaction of fallback (`fallback.changelog`, key
    `ledger`): accepted = opened + duplicates + refused, opened = settled + open."""

    record_version: int
    tenant: str
    partition: int
    positions: dict[str, int]
    opened: int
    duplicates: int
    repeats: int
    refused: int
    settled: int
    open: int


class Control(TypedDict):
    """What everything keys on (`control`); written once by `pipeline topics apply`."""

    record_version: int
    tenant: str
    partitions: int
    partitioner: str
    pepper_fingerprint: str
    created_at: int
