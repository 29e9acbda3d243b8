"""What is finished out of order, and the text that says so in a commit."""

import pytest

from pipeline.domain.completion import LIMIT, Completion, UnknownMap


def taken(*offsets: int, position: int = 0) -> Completion:
    completion = Completion(position)
    assert all(completion.take(offset) for offset in offsets)
    return completion


def test_the_position_is_the_lowest_unfinished_offset() -> None:
    completion = taken(5, 6, 7, position=5)
    completion.finish(6)
    assert completion.position == 5
    completion.finish(5)
    assert completion.position == 7
    completion.finish(7)
    assert completion.position == 8


def test_offsets_without_a_record_count_as_finished() -> None:
    """Transaction markers take offsets that no consumer ever sees."""
    completion = taken(5, 9, position=3)
    assert completion.finished(3)
    assert completion.finished(7)
    completion.finish(5)
    assert completion.position == 9


def test_nothing_finished_above_the_position_needs_no_text() -> None:
    assert Completion(10).text() == ""
    assert taken(10, 11, position=10).text() == ""


def test_a_restored_map_skips_what_is_finished_and_takes_the_rest() -> None:
    completion = taken(*range(100, 120), position=100)
    for offset in (101, 102, 110):
        completion.finish(offset)
    restored = Completion(completion.position, completion.text())
    assert [o for o in range(100, 125) if restored.take(o)] == [
        o for o in range(100, 125) if o not in (101, 102, 110)
    ]
    assert restored.position == 100


def test_an_unfinished_offset_that_never_comes_again_held_no_record() -> None:
    """Otherwise it would hold the position for ever."""
    first = taken(1, 2, 3, 4, position=1)
    first.finish(3)
    restored = Completion(first.position, first.text())
    assert restored.take(2)
    restored.finish(2)
    assert restored.position == 4
    assert restored.take(5)
    restored.finish(5)
    assert restored.position == 6


@pytest.mark.parametrize("text", ["m2:AB", "hello", "1;tid=x", "m1:?", "m1:" + "_" * 20])
def test_a_map_of_another_version_is_named_as_such(text: str) -> None:
    with pytest.raises(UnknownMap):
        Completion(0, text)


def test_it_says_crowded_before_the_text_comes_near_the_brokers_limit() -> None:
    completion = Completion(0)
    offset = 0
    assert completion.roomy
    while not completion.crowded or completion.unfinished < 750:
        completion.take(offset)
        completion.take(offset + 40)
        completion.finish(offset + 40)
        offset += 40_000
    assert len(completion.text()) < LIMIT
    assert completion.crowded
    assert not completion.roomy


def test_finishing_twice_changes_nothing() -> None:
    completion = taken(1, 2, position=1)
    completion.finish(1)
    completion.finish(1)
    assert completion.position == 2
