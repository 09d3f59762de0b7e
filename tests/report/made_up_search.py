"""Made-up searches for the report's tests: trials of a known function, some stopped, some failed."""

from __future__ import annotations

from math import exp, log10
from typing import Any

from megavox.core.randomness import generator
from megavox.report.search_content import ParameterRow, SearchContent, TrialRow

PARAMETERS = [
    ParameterRow("training.optimiser.rate", "number", log=True), ParameterRow("training.optimiser.name", "choice"),
    ParameterRow("training.optimiser.momentum", "number"), ParameterRow("batches.patch", "choice"),
    ParameterRow("training.batch", "number", log=True), ParameterRow("model.filters", "number"),
    ParameterRow("model.levels", "number"), ParameterRow("batches.augment.rotate", "choice")]
DEFAULTS = {"training.optimiser.rate": 1e-3, "training.optimiser.name": "adamw", "batches.patch": [64, 64, 64],
            "training.batch": 4, "model.filters": 32, "model.levels": 4, "batches.augment.rotate": True}
MEMORY = "it needs 31 GB of the device's memory, which has 24 GB"
LOST = "node c12 went down"
BEGAN = 1_930_000_000.0  # s since 1970


def made_up_setting(number: int) -> dict[str, Any]:
    """The setting of a trial; momentum stands under a condition."""
    random = generator(11, "made-up setting", number)
    setting: dict[str, Any] = {"training.optimiser.rate": float(10 ** random.uniform(-6, -1)),
                               "training.optimiser.name": ("adamw", "sgd", "lamb")[random.integers(3)]}
    if setting["training.optimiser.name"] == "sgd":
        setting["training.optimiser.momentum"] = float(random.uniform(0.9, 0.99))
    side = int((32, 64, 96)[random.integers(3)])
    return {**setting, "batches.patch": [side] * 3, "training.batch": int(2 ** random.integers(0, 6)),
            "model.filters": 4 * int(random.integers(2, 9)), "model.levels": int(random.integers(2, 6)),
            "batches.augment.rotate": bool(random.integers(2))}


def made_up_dice(setting: dict[str, Any], number: int) -> float:
    """Dice of a setting: the rate matters most, then the patch; one in 40 diverges."""
    noise = float(generator(11, "made-up noise", number).normal(0, 0.01))
    if number % 40 == 17:
        return 0.02
    rate = log10(setting["training.optimiser.rate"])
    return 0.88 * exp(-((rate + 3.2) / 3) ** 2) - 0.05 * (setting["batches.patch"][0] == 32) + noise


def made_up_trial(number: int, workers: int) -> TrialRow:
    """A trial that was tried for an hour or two; some fail, some are stopped halfway."""
    setting = made_up_setting(number)
    random = generator(11, "made-up trial", number)
    hours, began = float(random.uniform(0.5, 2.0)), BEGAN + 3600 * 1.3 * (number // workers) + 60 * number
    value = made_up_dice(setting, number)
    shares = [k / 10 for k in range(1, 11)]
    scores = [(share, value * (1 - exp(-4 * share)) / (1 - exp(-4))) for share in shares]
    common: dict[str, Any] = {"number": number, "setting": setting, "began": began, "ranks": 2}
    if setting["batches.patch"][0] == 96 and setting["training.batch"] > 8:
        return TrialRow(state="failed", cause="setting", told=MEMORY, ended=began + 90, seconds=60.0, **common)
    if number % 23 == 7:
        return TrialRow(state="failed", cause="machine", told=LOST, ended=began + 1800 * hours,
                        seconds=1500 * hours, **common)
    if value < 0.6 and number > 8:
        return TrialRow(state="stopped", ended=began + 1800 * hours, seconds=1700 * hours, scores=scores[:5], **common)
    return TrialRow(state="done", value=value, ended=began + 3600 * hours, seconds=3500 * hours, scores=scores,
                    **common)


def search_content(trials: int = 60, workers: int = 8, **changed: Any) -> SearchContent:
    """A search; its last jobs are under way."""
    rows = [made_up_trial(number, workers) for number in range(trials)]
    rows += [TrialRow(number=number, setting=made_up_setting(number), state="running", ranks=2, seconds=900.0,
                      began=BEGAN + 3600 * 1.3 * (number // workers), scores=[(0.1, 0.3)])
             for number in range(trials, trials + 3)]
    content: dict[str, Any] = {
        "study_name": "Lung nodules in CT", "objective": "dice", "goal": "maximise", "workers": workers,
        "method": "asynchronous", "trials": rows, "parameters": PARAMETERS, "defaults": DEFAULTS,
        "default_value": 0.81, "best_study": "name: nodules\n", "provenance": {"seed": 7, "versions": {"torch": "2"}},
        "importance": {one.name: 0.5 ** (k + 1) for k, one in enumerate(PARAMETERS)}}
    return SearchContent(**{**content, **changed})
