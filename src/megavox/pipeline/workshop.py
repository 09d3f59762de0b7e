"""What training, the probe and validation share: samples, network, task and recipe of one study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from megavox.batches.samples import Samples, class_target
from megavox.cohort.table import Entry
from megavox.core.errors import CohortError, StudyError, WorkspaceError
from megavox.core.files import read_json
from megavox.core.provenance import provenance
from megavox.images.intensity import cohort_intensities, normalise, normaliser, outside_value
from megavox.images.prepare import Preparation
from megavox.inference.engines import TorchEngine
from megavox.inference.predictor import logits_of
from megavox.inference.recipe import Recipe
from megavox.memory.exercise import compute_as
from megavox.memory.rules import Derived
from megavox.memory.streamed.share import Sharing, among
from megavox.models.registry import build_model
from megavox.pipeline.project import Project, packing_hash, study_hash
from megavox.store.layout import OUTSIDE
from megavox.store.read import CaseReader
from megavox.study import Study
from megavox.tasks.registry import build_task
from megavox.training.loop import Training
from megavox.training.parallel import Ranks


class Workshop:
    """Builds the parts of a training from a packed project.

    Args:
        project: packed.
        study: with every value derived.
        derived: what was derived, for the record.
        most_gb: of main memory, for a training step.
    """

    def __init__(self, project: Project, study: Study, derived: Sequence[Derived] = (),
                 most_gb: float = math.inf) -> None:
        self.project, self.study, self.derived, self.most_gb = project, study, derived, most_gb
        self.store = project.store()
        self.entries = project.entries()
        self.preparation = Preparation.from_dict(project.packing()["preparation"])
        for part in ("train", "validation"):
            if not self.part(part):
                raise CohortError(f"no case stands in the {part} part", where=project.workspace.cohort,
                                  fix="Add cases, or change split.test and split.validation, and pack again")
            records = [self.store.records[entry.key] for entry in self.part(part)]
            if study.task.kind != "classify" and not any(any(record.voxels) for record in records):
                raise CohortError(f"{len(records)} cases stand in the {part} part, none with anything to "
                                  f"{study.task.kind}", where=project.workspace.cohort,
                                  expected=" or ".join(study.task.names),
                                  fix="Look whether the masks or findings are those of these images")
        train = [self.store.records[entry.key] for entry in self.part("train")]
        self.task = build_task(study.task, train)
        mode = str(study.images.normalise)
        self.cohort = cohort_intensities([record.intensities for record in train]) if mode == "hu" else None
        self.mode = mode
        self.patch = tuple(int(n) for n in study.batches.patch)
        if len(self.patch) != self.preparation.spatial_dims:
            raise StudyError(f"batches.patch is {study.batches.patch}", expected=f"{self.preparation.spatial_dims} "
                             "numbers, since the images have so many dimensions")

    def part(self, name: str) -> list[Entry]:
        """Entries of train, validation or test."""
        return [entry for entry in self.entries if entry.part == name]

    def recipe(self) -> Recipe:
        """The run's recipe, not yet calibrated."""
        return Recipe(self.project.run_name, self.study, self.project.study, [asdict(one) for one in self.derived],
                      self.preparation, self.mode, self.cohort,
                      str(self.study.training.precision),
                      provenance={**provenance(study_hash(self.project.study), self.study.seed),
                                  "split_hash": self.project.split_hash()})

    def samples(self) -> Samples:
        """Training samples."""
        readers = [self._reader(entry) for entry in self.part("train")]
        mined = self._mined()
        hard = {number: mined[reader.record.key] for number, reader in enumerate(readers) if reader.record.key in mined}
        return Samples(readers, [self._numbers(reader) for reader in readers], patch=self.patch,
                       batch=int(self.study.batches.size), section=self.study.batches, seed=self.study.seed,
                       classes=self.task.outputs if self.task.kind == "classify" else 0, hard=hard)

    def _mined(self) -> dict[str, np.ndarray]:
        """Positions of an earlier run's false positives, by key of the case."""
        section = self.study.batches.hard
        if section is None:
            return {}
        run = self.project.workspace.run(section.run)
        if not run.mined.exists():
            raise WorkspaceError("this run's false positives are not known", where=run.hard, fix="Train that run, and "
                                 f"then `megavox mine STUDY --run-name {section.run}`")
        if read_json(run.mined)["store"] != packing_hash(self.project):
            raise WorkspaceError("these are places in cases that were packed with other settings", where=run.hard,
                                 fix="Mine again, with a run that was trained on these")
        paths = {entry.key: run.hard / f"{entry.key}.json" for entry in self.part("train")}
        found = {key: np.array(read_json(path), dtype=int) for key, path in paths.items() if path.exists()}
        return {key: rows for key, rows in found.items() if len(rows)}

    def false_positives(self, network: nn.Module, device: torch.device,
                        entries: Sequence[Entry]) -> Iterator[tuple[str, list[list[int]]]]:
        """Key of each case, and where a network detects something that is not there: class 0 and voxel."""
        engine, recipe = TorchEngine(network.eval(), device, str(self.study.training.precision)), self.recipe()
        for reader in map(self._reader, entries):
            logits, mask = self._logits(engine, reader, recipe)
            task, record = self.task, reader.record
            found = task.candidates(logits, mask != OUTSIDE, record.geometry)  # type: ignore[attr-defined]
            wrong = task.wrong(found, record.findings or ())  # type: ignore[attr-defined]
            yield record.key, [[0, *np.rint(record.geometry.index_of(centre)[::-1]).astype(int).tolist()]
                               for centre in found.centres_mm[wrong]]

    def network(self, device: torch.device, share: Sharing | None = None) -> nn.Module:
        """A network with the study's first weights; `share` as of `compute_as`."""
        torch.manual_seed(self.study.seed)
        network = build_model(self.study.model, spatial_dims=self.preparation.spatial_dims,
                              in_channels=self.preparation.channels, out_channels=self.task.outputs,
                              patch=self.patch)
        compute_as(network, self.study.training.memory, device.type, share)
        return network.to(device)

    def training(self, ranks: Ranks) -> Training:
        """Everything the loop needs; its steps may not be known yet where a probe is to find them."""
        section, shared = self.study.training, self.study.training.ranks.split
        share = among(ranks.sharing(shared)) if shared > 1 else None
        network = self.network(ranks.device, share)

        def own(target: torch.Tensor) -> torch.Tensor:
            slices = target.shape[1]
            return target if share is None else target[:, slice(*share(network, slices).own(slices))]

        return Training(network, self.task, self.samples(), self.validation(ranks), section, self.study.seed,
                        int(self.study.batches.workers), self.study.batches.prefetch, str(section.precision), own,
                        self.most_gb)

    def validation(self, ranks: Ranks, entries: Sequence[Entry] | None = None,
                   mirror: bool = False) -> Callable[[nn.Module], list[Any]]:
        """A function that gives the task's rows for this rank's share of the validation cases.

        Args:
            ranks: this rank among all.
            entries: other cases than those of the validation part.
            mirror: as prediction does if the study asks; without it validation takes half the time.
        """
        chosen = self.part("validation") if entries is None else list(entries)
        readers = [self._reader(entry) for entry in chosen][ranks.rank::ranks.count]
        recipe = self.recipe()
        if not mirror:
            inference = self.study.inference.model_copy(update={"mirror": False})
            recipe = replace(recipe, study=self.study.model_copy(update={"inference": inference}))

        def rows(network: nn.Module) -> list[Any]:
            engine = TorchEngine(network.eval(), ranks.device, recipe.precision)
            return [self._row(engine, reader, recipe) for reader in readers]

        return rows

    def _row(self, engine: TorchEngine, reader: CaseReader, recipe: Recipe) -> Any:
        logits, mask = self._logits(engine, reader, recipe)
        record = reader.record
        if self.task.kind == "classify":
            return self.task.row(logits, class_target(record.classes or (), record.unknown, self.task.outputs))
        return self.task.row(logits, mask if self.task.kind == "segment" else (mask, record))

    def _logits(self, engine: TorchEngine, reader: CaseReader, recipe: Recipe) -> tuple[np.ndarray, Any]:
        """Logits of a case, and its mask (None to classify)."""
        shape = reader.record.shape[1:]
        zero, numbers = (0,) * len(shape), self._numbers(reader)
        image = normalise(reader.image(zero, shape), numbers)
        outside = outside_value(reader.record.intensities, numbers)
        if self.task.kind == "classify":
            return logits_of(engine, recipe, image, outside), None
        mask = reader.mask(zero, shape)
        where = np.not_equal(mask, OUTSIDE) if self.task.kind == "detect" else None
        return logits_of(engine, recipe, image, outside, where), mask

    def _reader(self, entry: Entry) -> CaseReader:
        return self.store.reader(entry.key, entry.case.name)

    def _numbers(self, reader: CaseReader) -> np.ndarray:
        return normaliser(self.mode, reader.record.intensities, self.cohort)
