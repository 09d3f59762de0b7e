"""The loader: the same batches however many workers and ranks make them, and from any step on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from megavox.batches.batch import Batch, RawBatch
from megavox.batches.loader import batches
from megavox.batches.samples import Samples
from megavox.core.errors import TrainingError
from packed_arrays import WILD, packed, samples_of, three_cases

PATCH = (8, 10, 10)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return samples_of(three_cases(tmp_path_factory.mktemp("store")), PATCH, batch=4, augment=WILD, seed=5)


def same(one: list[Batch], other: list[Batch]) -> bool:
    assert [batch.step for batch in one] == [batch.step for batch in other]
    return all(torch.equal(a.image, b.image) and torch.equal(a.target, b.target) and a.cases == b.cases
               for a, b in zip(one, other, strict=True))


def test_a_batch_holds_the_samples_of_its_step(samples):
    made = list(batches(samples, first_step=2, steps=5))
    assert [batch.step for batch in made] == [2, 3, 4]
    for batch in made:
        wanted = [samples.sample(batch.step, position) for position in range(4)]
        assert batch.image.shape == (4, 1, *PATCH) and batch.image.dtype == torch.float32
        assert batch.target.shape == (4, *PATCH) and batch.target.dtype == torch.uint8
        np.testing.assert_array_equal(batch.image, np.stack([sample.image for sample in wanted]))
        np.testing.assert_array_equal(batch.target, np.stack([sample.target for sample in wanted]))
        assert batch.cases == [sample.case for sample in wanted]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_what_one_process_makes(samples, workers):
    alone = list(batches(samples, first_step=1, steps=6))
    assert same(alone, list(batches(samples, first_step=1, steps=6, workers=workers, prefetch=2)))


@pytest.mark.parametrize("workers", [0, 1])
def test_raw_batches_are_those_batches_when_they_are_finished(tmp_path, workers):
    samples = samples_of(three_cases(tmp_path), PATCH, batch=4, augment=WILD, seed=5)
    wanted = list(batches(samples, first_step=1, steps=3, accumulate=2))
    samples.section = samples.section.model_copy(update={"augment_on": "device"})
    made = list(batches(samples, first_step=1, steps=3, accumulate=2, workers=workers))
    for raw, batch in zip(made, wanted, strict=True):
        assert isinstance(raw, RawBatch) and raw.shape == batch.shape == (2, 1, *PATCH)
        finished = raw.on(torch.device("cpu"))
        assert (finished.step, finished.cases) == (batch.step, batch.cases)
        torch.testing.assert_close(finished.image, batch.image, rtol=0, atol=1e-4 * float(batch.image.max()))
        assert torch.equal(finished.target, batch.target)


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_dealing_gives_the_same_global_batch(samples, ranks, accumulate):
    whole = list(batches(samples, first_step=0, steps=3))
    dealt = [list(batches(samples, first_step=0, steps=3, rank=rank, ranks=ranks, accumulate=accumulate))
             for rank in range(ranks)]
    for step, batch in enumerate(whole):
        parts = [dealt[rank][step * accumulate + part] for part in range(accumulate) for rank in range(ranks)]
        assert all(part.step == step and len(part.image) == 4 // (ranks * accumulate) for part in parts)
        assert torch.equal(torch.cat([part.image for part in parts]), batch.image)
        assert torch.equal(torch.cat([part.target for part in parts]), batch.target)
        assert [case for part in parts for case in part.cases] == batch.cases


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resuming_gives_the_batches_that_would_have_come(samples, accumulate):
    through = list(batches(samples, first_step=0, steps=6, accumulate=accumulate))
    resumed = list(batches(samples, first_step=4, steps=6, accumulate=accumulate))
    assert same(through[4 * accumulate:], resumed)
    assert list(batches(samples, first_step=6, steps=6)) == []


def test_a_batch_that_cannot_be_dealt_evenly_is_refused(samples):
    with pytest.raises(TrainingError, match=r"batches\.size: a global batch of 4 .* 3 ranks x 1"):
        next(batches(samples, first_step=0, steps=1, ranks=3))


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_own_random_numbers_and_the_warning_filters_are_left_alone(samples, workers):
    state, filters = torch.get_rng_state(), list(warnings.filters)
    making = batches(samples, first_step=0, steps=3, workers=workers)
    next(making)
    assert torch.equal(torch.get_rng_state(), state) and warnings.filters == filters
    making.close()


def test_classified_cases_make_targets_a_class(tmp_path):
    rng = np.random.default_rng(0)
    readers = [packed(tmp_path / f"k{n}", rng.normal(size=(2, 12, 14)).astype(np.float32), labels=(n,))
               for n in range(3)]
    made = list(batches(samples_of(readers, (8, 8), batch=3, classes=3), first_step=0, steps=2))
    for batch in made:
        assert batch.image.shape == (3, 2, 8, 8) and batch.target.dtype == torch.float32
        assert torch.equal(batch.target, torch.eye(3)[batch.cases]) and sorted(batch.cases) == [0, 1, 2]


class Broken(Samples):
    """Samples with a bug."""

    def sample(self, step, position):
        raise RuntimeError("a bug of ours")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_not_taken_for_a_dead_worker(samples, workers):
    broken = Broken(samples.readers, samples.numbers, patch=PATCH, batch=4, section=samples.section, seed=0)
    try:
        next(batches(broken, first_step=0, steps=1, workers=workers))
    except RuntimeError as error:
        assert "a bug of ours" in str(error) and type(error) is RuntimeError
        error.__traceback__ = None  # it holds the loader, whose workers would be waited for
    else:
        pytest.fail("no error")
