"""The list of planted bugs is the product's list of switches: none is forgotten, none invented."""

from dataclasses import replace

from pipeline.domain.switches import NONE
from tests.faults.mutants import MUTANTS, names


def test_every_switch_has_a_plan_that_brings_it_out() -> None:
    assert list(MUTANTS) == names()


def test_every_mutant_can_be_planted() -> None:
    for name in MUTANTS:
        assert getattr(replace(NONE, **{name: True}), name) is True
