"""The stages: pure functions of record, state and time. They meet only through topics."""
