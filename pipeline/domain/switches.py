"""Faults that the tests plant on purpose. Each breaks one guarantee, and the fault tests must see
it; nothing but `tests/faults/` ever sets one: no setting, no flag, no environment variable."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Switches:
    """All off in every real run."""

    no_dedup: bool = False  # G1: a repeat of a message is opened again
    offset_too_far: bool = False  # G1: a commit claims one record more than was processed
    no_rewind: bool = False  # G1: after an abort the records are not read again
    read_uncommitted: bool = False  # G2: readers see aborted records
    no_producer_rebuild: bool = False  # G2: a late EndTxn can reach the next transaction
    changelog_first: bool = False  # G2: state may be in the log without its outputs
    topics_by_assignor: bool = False  # G1: a task's topics come from different partitions
    last_stable_as_watermark: bool = False  # G6: a receipt in an open transaction is not seen
    random_message_id: bool = False  # G2, G3: a repeat is another message
    journal_before_token: bool = False  # G3: what was only queued counts as sent after a crash
    poll_time_metadata: bool = False  # G2: a commit under the generation of the poll
    window_ignored: bool = False  # G6: the next step does not wait
    deadline_ignored: bool = False  # G7: sends go on after the deadline
    status_may_go_back: bool = False  # G5: a later receipt overwrites a better status


NONE = Switches()
