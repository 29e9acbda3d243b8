"""The oracle: every check over one run's history. Pure, so that it can be tested itself; an oracle
that cannot fail is worth nothing (test_oracle.py breaks each check on purpose)."""

from tests.faults import checks_books, checks_sends, checks_status
from tests.faults.findings import Finding
from tests.faults.history import History


def judge(history: History, *, repeats_allowed: int = 0) -> list[Finding]:
    """All findings. `repeats_allowed` is above zero only where transactions are torn on purpose
    behind the pipeline's back, which G2 lets repeat an output under its own id."""
    keyed, undeclared = checks_sends.double_sends(history)
    return [
        checks_books.lost(history),
        checks_books.doubled(history),
        checks_books.misjudged(history),
        checks_books.repeated(history, repeats_allowed),
        checks_books.receipts_repeated(history),
        checks_books.aborted_reads(history),
        checks_books.underived(history),
        keyed,
        undeclared,
        checks_sends.order(history),
        checks_sends.overlaps(history),
        checks_sends.after_deadline(history),
        checks_sends.retries(history),
        checks_sends.false_doubt(history),
        checks_status.next_steps(history),
        checks_status.deaf_timeouts(history),
        checks_status.outcomes_true(history, faults=bool(history.faults)),
        checks_status.late_receipts(history),
        checks_status.monotonic(history),
    ]


def broken(findings: list[Finding]) -> list[Finding]:
    """The findings that are not as they must be."""
    return [finding for finding in findings if not finding.ok]
