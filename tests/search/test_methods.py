"""What every method promises: settings of the space, the same from the same storage, also after a restart."""

from __future__ import annotations

from typing import Any, get_args

import optuna
import pytest
from spaces import MIXED

from megavox.search.ledger import Ledger
from megavox.search.methods import sampler_of
from megavox.study.search import ParameterSection, SearchSection

METHODS = get_args(SearchSection.model_fields["method"].annotation)


def proposals(method: str, seed: int, restarted: bool = False) -> list[Any]:
    """Settings of 8 trials, of which every other one has ended before the next is proposed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    section = SearchSection.model_validate({"space": {"x": ParameterSection(low=0.0, high=1.0)}, "method": method})
    storage = optuna.storages.InMemoryStorage()
    made: Any = None
    for number in range(8):
        if made is None or restarted:
            made = Ledger(storage, MIXED, sampler_of(section, MIXED, seed, lambda setting: True), "minimise", "s")
        trial = made.propose()
        if number % 2:
            made.end(trial, float(made.setting(trial)["rate"]))
    return [made.setting(trial) for trial in made.trials()]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_proposes_settings_of_the_space_and_the_same_ones_again(method: str) -> None:
    found = proposals(method, 0)
    assert all(MIXED.decode(MIXED.encode(one)).keys() == one.keys() for one in found)
    assert found == proposals(method, 0) == proposals(method, 0, restarted=True) != proposals(method, 1)
    assert len({str(one) for one in found}) == 8, "nothing is proposed twice"
