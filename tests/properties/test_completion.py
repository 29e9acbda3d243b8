"""Whatever finishes in whatever order: a restored map knows the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.completion import LIMIT, Completion

GAPS = st.lists(st.integers(1, 70_000), max_size=200)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), GAPS, st.randoms(use_true_random=False))
def test_a_restored_map_knows_what_the_first_knew(position: int, gaps: list[int], chance) -> None:
    offsets = []
    for gap in gaps:
        offsets.append((offsets[-1] if offsets else position) + gap)
    first = Completion(position)
    for offset in offsets:
        assert first.take(offset)
    finished = {offset for offset in offsets if chance.random() < 0.5}
    for offset in finished:
        first.finish(offset)
    text = first.text()
    assert len(text) < LIMIT
    assert text.isascii()
    assert "\0" not in text
    restored = Completion(first.position, text)
    assert restored.frontier <= first.frontier
    again = [offset for offset in offsets if offset >= first.position and restored.take(offset)]
    assert again == sorted(set(offsets) - finished)
    for offset in again:
        restored.finish(offset)
    assert restored.position == restored.frontier


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=200))
def test_the_position_never_goes_back_and_never_passes_an_unfinished_record(
    moves: list[tuple[bool, int]],
) -> None:
    completion, model, last, upto = Completion(0), set(), 0, 0
    for take, number in moves:
        if take:
            upto += 1 + number % 3
            assert completion.take(upto)
            model.add(upto)
        elif model:
            offset = sorted(model)[number % len(model)]
            completion.finish(offset)
            model.discard(offset)
        assert completion.position >= last
        assert completion.position == min(model, default=completion.frontier)
        last = completion.position
