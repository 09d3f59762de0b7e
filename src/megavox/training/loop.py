"""The training loop: plain PyTorch, one rank or many.

A step depends only on the study and the step's number, so a run that was stopped and continued is bit
for bit the run that was not (on one kind of device).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from megavox.batches.batch import Batch, RawBatch
from megavox.batches.loader import ENDLESS, batches
from megavox.batches.samples import Samples
from megavox.core.errors import DivergenceError
from megavox.core.exhausted import enough_memory, held_to
from megavox.core.over_ranks import apart
from megavox.core.randomness import generator
from megavox.core.signals import Stop
from megavox.core.workspace import RunFolder
from megavox.study.training import TrainingSection
from megavox.tasks.registry import Task
from megavox.training.checkpoint import Progress, latest_checkpoint, load_checkpoint, save_checkpoint
from megavox.training.in_backward import InBackward
from megavox.training.log import TrainingLog
from megavox.training.optimiser import MovingAverage, build_optimiser, learning_rate
from megavox.training.parallel import Ranks

SMALLER_STEP = ("Lower batches.size, batches.patch or model.filters, or raise training.accumulate, which makes the "
                "same batch in smaller parts")
SMALLER_WINDOWS = "Lower inference.batch, or resample to a coarser images.spacing_mm"


@dataclass(frozen=True)
class Training:
    """Everything the loop needs.

    Attributes:
        network: the model, on the rank's device.
        task: loss and metrics.
        samples: makes training samples.
        validate: network -> rows of this rank's share of the validation cases.
        section: the study's training section; `steps` given.
        seed: the study's seed.
        workers, prefetch: loader processes of this rank, batches each prepares ahead.
        precision: float32 or bfloat16.
        own: cuts a target to what this rank has of it, where ranks share samples.
        most_gb: of main memory, for a step.
    """

    network: nn.Module
    task: Task
    samples: Samples
    validate: Callable[[nn.Module], list[Any]]
    section: TrainingSection
    seed: int
    workers: int
    prefetch: int
    precision: str
    own: Callable[[torch.Tensor], torch.Tensor] = lambda target: target
    most_gb: float = math.inf


def train(training: Training, folder: RunFolder, ranks: Ranks, stop: Stop) -> Progress:
    """Train to the last step, or until patience ends or `stop` is asked for.

    Raises:
        DivergenceError: the loss is not finite; with the cases of that batch.
        TrainingError: a loader worker died.
        MachineError: memory ran out.
        Stopped: a signal asked to stop; a checkpoint was written.
    """
    section, network = training.section, training.network
    steps, validations, checkpoints = int(section.steps), validation_steps(section), checkpoint_steps(section)
    optimiser = build_optimiser(network, section.optimiser)
    average = MovingAverage(network, section.ema)
    latest = latest_checkpoint(folder)
    progress = load_checkpoint(latest, network, average, optimiser) if latest else Progress()
    if latest and ranks.first:  # a kill may have come between the checkpoint and the note that it is the best
        save_checkpoint(folder, network, average, optimiser, progress, section.keep)
    ranks.barrier()  # reading and tidying up may take one rank longer than the others wait in a step
    log = TrainingLog(folder.metrics, first_step=progress.step, steps=steps, metric=training.task.headline,
                      speak=ranks.first)
    stepper = Stepper(training, ranks, optimiser, average, progress.step, steps)
    try:
        for step in range(progress.step, steps):
            if section.patience and progress.since_best >= section.patience:
                break
            loss, ending = stepper.step(step, lambda: stop.asked)
            progress.step = step + 1
            progress.seconds += stepper.seconds
            log.step(step + 1, loss, stepper.rate, stepper.samples_per_s, stepper.waiting)
            if step + 1 in validations:
                _validate(training, average, ranks, progress, log)
            if ranks.first and (step + 1 in checkpoints or ending):
                save_checkpoint(folder, network, average, optimiser, progress, section.keep)
            if step + 1 in checkpoints or ending:
                ranks.barrier()  # writing may take longer than a rank is waited for, or than the others need to leave
            if ending:
                stop.leave(f"stopped after step {step + 1}; a checkpoint was written and the same command goes on")
        ranks.barrier()
    finally:
        stepper.close()
        log.close()
    return progress


def stepper_on_a_copy(training: Training, ranks: Ranks) -> Stepper:
    """Makes steps that are measured and thrown away: with a copy of the network, and without an end."""
    network = copy.deepcopy(training.network)
    return Stepper(replace(training, network=network), ranks, build_optimiser(network, training.section.optimiser),
                   MovingAverage(network, training.section.ema), 0, ENDLESS)


def validation_steps(section: TrainingSection) -> set[int]:
    """Steps after which to validate: evenly spread, the last included."""
    steps, count = int(section.steps), min(section.validations, int(section.steps))
    return {round(steps * (k + 1) / count) for k in range(count)}


def checkpoint_steps(section: TrainingSection) -> set[int]:
    """Steps after which to write a checkpoint; every validation is one, so that the best is kept."""
    every = section.checkpoint_every
    return validation_steps(section) | (set(range(every, int(section.steps) + 1, every)) if every else set())


class Stepper:
    """Makes one optimiser step after the other and measures them.

    Args:
        training: what is trained.
        ranks: this rank among all.
        optimiser, average: brought along.
        first_step, steps: which steps the loader prepares.

    Raises:
        StudyError: the study has settings that do not go with steps in the backward pass.
    """

    def __init__(self, training: Training, ranks: Ranks, optimiser: torch.optim.Optimizer, average: MovingAverage,
                 first_step: int, steps: int) -> None:
        self.training, self.ranks, self.optimiser, self.average = training, ranks, optimiser, average
        in_backward = training.section.memory.in_backward is True
        self.steps, self.network = steps, ranks.wrap(training.network, training.section.ranks, not in_backward)
        self.in_backward = InBackward(self.network, optimiser, training.section) if in_backward else None
        self.seconds = self.waiting = self.samples_per_s = self.rate = 0.0
        cuda = ranks.device.type == "cuda"
        section = training.section.ranks
        self._batches: Iterator[Batch | RawBatch] = batches(
            training.samples, first_step=first_step, steps=steps, rank=ranks.rank // section.split,
            ranks=section.groups(ranks.count), accumulate=training.section.accumulate, workers=training.workers,
            prefetch=training.prefetch, pin=cuda)

    def step(self, step: int, flag: Callable[[], bool] = bool, together: bool = True) -> tuple[float, bool]:
        """One optimiser step.

        Args:
            step: counted from 0.
            flag: of this rank, asked when the step is done; `bool()` is False.
            together: else every rank makes it from its own samples alone, without a word to the others.

        Returns:
            Its loss, averaged over ranks and micro-batches, and whether any rank has its flag set.
        """
        section, begin, waited, total = self.training.section, time.perf_counter(), 0.0, 0.0
        self.network.train()
        self.rate = learning_rate(step, self.steps, section.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.optimiser.zero_grad(set_to_none=True)
        for part in range(section.accumulate):
            asked = time.perf_counter()
            batch = next(self._batches)
            waited += time.perf_counter() - asked
            # After the batch came: a loader that starts draws from torch's generator.
            address = ("dropout", step, part, self.ranks.rank)
            torch.manual_seed(int(generator(self.training.seed, *address).integers(2**62)))
            last = part == section.accumulate - 1
            alone = nullcontext() if together else apart()
            wait = nullcontext() if self.ranks.count == 1 or self.in_backward or (last and together) else \
                self.network.no_sync()  # type: ignore[operator]
            patches = " x ".join(map(str, batch.shape))
            lack = enough_memory(f"a training step on a batch of {patches}", SMALLER_STEP)
            with alone, wait, lack, held_to(self.training.most_gb):
                total += self._backward(batch, section.accumulate)
        if section.optimiser.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), section.optimiser.clip)
        self.optimiser.step()  # of nothing, where steps are taken in the backward pass: no gradient is left
        self.average.update(self.training.network, step)
        loss, any_flag = total / section.accumulate, flag()
        if together:
            loss, any_flag = self.ranks.agree(loss, any_flag)
        self.seconds = time.perf_counter() - begin
        self.waiting = waited / self.seconds
        self.samples_per_s = self.training.samples.batch / self.seconds
        return loss, any_flag

    def _backward(self, made: Batch | RawBatch, accumulate: int) -> float:
        device = self.ranks.device
        batch = made.on(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16"):
            output = self.network(batch.image)
        loss = self.training.task.loss(output, self.training.own(batch.target))
        value = float(loss.detach())
        if not math.isfinite(value):
            names = ", ".join(self.training.samples.readers[case].name for case in batch.cases)
            where = f"cases {names}" if self.ranks.count == 1 else f"cases {names}, or those of another rank"
            raise DivergenceError(f"the loss became {value} at step {batch.step + 1}", where=where,
                                fix="Lower training.optimiser.rate; if that does not help, look at these cases. The "
                                "run continues from its last checkpoint, if it has one")
        (loss / accumulate).backward()
        if self.in_backward:
            self.in_backward.finish()
        return value

    def close(self) -> None:
        """End the loader's workers, and leave the network's backward pass as it was."""
        del self._batches
        if self.in_backward:
            self.in_backward.close()


def _validate(training: Training, average: MovingAverage, ranks: Ranks, progress: Progress, log: TrainingLog) -> None:
    begin = time.perf_counter()
    with averaged_weights(training.network, average), enough_memory("a validation", SMALLER_WINDOWS):
        rows = ranks.gather(training.validate(training.network))
    progress.scores = training.task.score(rows)
    score = progress.scores[training.task.headline]
    known, best = not math.isnan(score), progress.best_score
    if not progress.best_step or (known and (best is None or score > best)):  # the first one, whatever it is
        progress.best_score, progress.best_step, progress.since_best = score if known else None, progress.step, 0
    else:
        progress.since_best += 1
    seconds = time.perf_counter() - begin
    progress.seconds += seconds
    log.validation(progress.step, progress.scores, seconds)


class averaged_weights:
    """For the time of the block the network has the averaged weights."""

    def __init__(self, network: nn.Module, average: MovingAverage) -> None:
        self.network, self.average = network, average

    def __enter__(self) -> None:
        self.latest = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.weights)

    def __exit__(self, *_: object) -> None:
        self.network.load_state_dict(self.latest)
