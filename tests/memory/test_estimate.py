"""The memory of a training, told beforehand, beside what it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from megavox.core.errors import StudyError
from megavox.memory.estimate import Kept, kept, training_gb
from megavox.study.sections import DetectTask, SegmentTask, UNetModel
from megavox.study.training import OptimiserSection, TrainingSection
from megavox.tasks.registry import build_task
from small_studies import environment

TASK = build_task(SegmentTask(kind="segment", classes={"a": 1}), [])
TRAINING = TrainingSection(optimiser=OptimiserSection(rate=1e-3))
PEAK = Path(__file__).with_name("peak_of_training.py")


@pytest.mark.parametrize(("filters", "patch", "batch", "residual"), [(16, 32, 16, 0), (8, 48, 4, 1), (24, 32, 4, 0),
                                                                  (16, 64, 2, 1)])
def test_the_estimate_is_near_what_a_training_takes(filters: int, patch: int, batch: int, residual: int) -> None:
    model = UNetModel(family="unet", filters=filters, levels=3, residual_units=residual)
    told = training_gb(kept(model, TASK, (patch,) * 3, 1), batch, TRAINING) - training_gb(Kept(0, ()), 1, TRAINING)
    words = [sys.executable, str(PEAK), *map(str, (filters, patch, batch, residual))]
    took = float(subprocess.run(words, capture_output=True, text=True, check=True, env=environment()).stdout)
    assert 0.75 < told / took < 1.4, (told, took)


def test_it_grows_with_the_batch_and_counts_weights_once() -> None:
    step = kept(UNetModel(family="unet", filters=8, levels=3), TASK, (32, 32, 32), 1)
    one, two, four = (training_gb(step, batch, TRAINING) for batch in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one))
    assert step.weights == 4 * sum(one.numel() for one in _network(8).parameters())
    detect = build_task(DetectTask(kind="detect"), [])
    assert kept(UNetModel(family="unet", filters=8, levels=3), detect, (32, 32, 32), 1).weights == step.weights


def test_a_network_that_cannot_be_is_told() -> None:
    with pytest.raises(StudyError, match="levels are too many"):
        kept(UNetModel(family="unet", filters=8, levels=5), TASK, (16, 16, 16), 1)


def _network(filters: int):  # type: ignore[no-untyped-def]
    from megavox.models.registry import build_model

    return build_model(UNetModel(family="unet", filters=filters, levels=3), spatial_dims=3, in_channels=1,
                       out_channels=2, patch=(32, 32, 32))
