"""One at a time per recipient; a bounded number in all."""

from pipeline.domain.turns import Limits, Place, Slots, Turns

LANES = ("urgent", "normal", "bulk")


def slots(**limits: float) -> Slots[str]:
    return Slots(Limits(**limits), LANES)  # type: ignore[arg-type]


def test_a_keys_items_go_one_by_one_in_the_order_of_arrival() -> None:
    turns: Turns[str, int] = Turns()
    assert turns.enter("a", 1)
    assert not turns.enter("a", 2)
    assert not turns.enter("a", 3)
    assert turns.enter("b", 4)
    assert len(turns) == 4
    assert [turns.leave("a"), turns.leave("a"), turns.leave("a")] == [2, 3, None]
    assert turns.enter("a", 5)


def test_dropped_items_never_get_a_turn() -> None:
    turns: Turns[str, int] = Turns()
    for number in (1, 2, 3):
        turns.enter("a", number)
    turns.enter("b", 10)
    assert turns.drop(lambda number: number < 10) == [2, 3]
    assert turns.leave("a") is None
    assert turns.enter("a", 4)
    assert not turns.enter("b", 11)
    assert turns.waiting == 1


def test_a_provider_holds_no_more_than_its_share() -> None:
    held = slots(slots=8, share=0.25, waiting=2)
    assert [held.ask("a", "normal", str(n)) for n in range(5)] == [
        Place.GRANTED,
        Place.GRANTED,
        Place.WAITING,
        Place.WAITING,
        Place.FULL,
    ]
    assert held.filled("a", "normal") == 1
    assert held.ask("b", "normal", "other") is Place.GRANTED
    assert held.free("a") == ["2"]


def test_an_urgent_item_passes_those_that_wait_in_other_lanes() -> None:
    held = slots(slots=4, share=0.25, waiting=5)
    held.ask("a", "bulk", "first")
    held.ask("a", "bulk", "bulk")
    held.ask("a", "normal", "normal")
    held.ask("a", "urgent", "urgent")
    assert [held.free("a"), held.free("a"), held.free("a"), held.free("a")] == [
        ["urgent"],
        ["normal"],
        ["bulk"],
        [],
    ]


def test_all_slots_together_are_bounded_and_freed_ones_go_to_whoever_holds_least() -> None:
    held = slots(slots=4, share=0.75, waiting=5)
    for number in range(3):
        assert held.ask("a", "normal", f"a{number}") is Place.GRANTED
    assert held.ask("b", "normal", "b0") is Place.GRANTED
    assert held.ask("a", "normal", "a3") is Place.WAITING
    assert held.ask("b", "normal", "b1") is Place.WAITING
    assert held.free("b") == ["b1"]
    assert held.free("a") == ["a3"]
    assert held.held == 4


def test_waiting_items_can_be_taken_out() -> None:
    held = slots(slots=4, share=0.25, waiting=5)
    for name in ("one", "two", "three"):
        held.ask("a", "normal", name)
    assert held.drop(lambda name: name == "two") == ["two"]
    assert held.waiting == 1
    assert held.free("a") == ["three"]
