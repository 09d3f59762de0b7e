"""Every error a user can cause or meet, in one tree.

    MegavoxError
    |-- StudyError          the study file is wrong
    |   `-- CannotBeTold        the memory of a network that cannot be followed
    |-- ImageError          one file cannot be used; `reason` is the word in quarantine.csv
    |   |-- UnreadableImage     truncated, not an image, codec missing
    |   |-- UnsupportedImage    a valid file that holds no image we handle (a report, a waveform)
    |   |-- GeometryError       grid unknown or not the one expected (distances in mm)
    |   `-- LabelError          mask values or targets that the study does not name
    |-- CohortError         nothing left to work on, or a split that leaks
    |-- StoreError          a packed case is missing or damaged
    |-- WorkspaceError      a stage was asked for before the one it needs
    |-- CheckpointError     no checkpoint, or one that does not fit
    |-- TrainingError       the training cannot go on: loader worker dead
    |   |-- DivergenceError     loss not finite
    |   `-- RankError           another rank died
    |-- MachineError        disk full, memory, device
    |-- ScriptError         a Python script that worker processes cannot import
    `-- SiteError           a batch system refuses a job, or cannot be reached

A message says what was found, where, what was expected and what to do. Anything that is not a
`MegavoxError` is our own bug: the command line writes its traceback to a file and exits with 1.
"""

from __future__ import annotations

from megavox.core.signals import PEER_DIED


class MegavoxError(Exception):
    """A problem that the user can mend.

    Args:
        found: what is wrong, as a clause without a full stop.
        where: file, case or key path.
        expected: what would have been right.
        fix: what to do, as a sentence without a full stop.
    """

    status = 2  # of the process, when the command line tells it

    def __init__(self, found: str, *, where: object = "", expected: str = "", fix: str = "") -> None:
        self.found, self.where, self.expected, self.fix = found, str(where), expected, fix
        super().__init__(found, self.where, expected, fix)

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}." if self.where else f"{self.found}."
        if self.expected:
            text += f" Expected: {self.expected}."
        if self.fix:
            text += f" {self.fix}."
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (pack and loader workers): keep the keyword fields.
        return _rebuild, (type(self), self.found, self.where, self.expected, self.fix, self.__dict__)


def _rebuild(kind: type[MegavoxError], found: str, where: str, expected: str, fix: str,
             fields: dict[str, object]) -> MegavoxError:
    error = kind(found, where=where, expected=expected, fix=fix)
    error.__dict__.update(fields)
    return error


class StudyError(MegavoxError):
    """The study file, or a `--set`, is wrong."""


class CannotBeTold(StudyError):
    """A network that does what cannot be done without numbers: its memory is not known beforehand."""


class ImageError(MegavoxError):
    """One file cannot be used. `reason` is a short word for quarantine.csv."""

    reason = "image"

    def __init__(self, found: str, *, where: object = "", expected: str = "", fix: str = "",
                 reason: str | None = None) -> None:
        super().__init__(found, where=where, expected=expected, fix=fix)
        if reason is not None:
            self.reason = reason


class UnreadableImage(ImageError):
    """The file cannot be opened or decoded."""

    reason = "unreadable"


class UnsupportedImage(ImageError):
    """A valid file that holds no image Megavox handles."""

    reason = "unsupported"


class GeometryError(ImageError):
    """The grid is unknown, inconsistent, or not the one expected."""

    reason = "geometry"


class LabelError(ImageError):
    """A target is missing or has values that the study does not name."""

    reason = "label"


class CohortError(MegavoxError):
    """Nothing left to work on, or subjects on two sides of a split."""


class StoreError(MegavoxError):
    """A packed case is missing or damaged."""


class WorkspaceError(MegavoxError):
    """A stage was asked for before the one that it needs."""


class CheckpointError(MegavoxError):
    """No checkpoint to load, or one that does not fit the study."""


class TrainingError(MegavoxError):
    """The training cannot go on: loss not finite, a worker or a rank died."""


class DivergenceError(TrainingError):
    """The loss is not finite."""


class RankError(TrainingError):
    """Another rank of this training died, or does not answer."""

    status = PEER_DIED


class MachineError(MegavoxError):
    """The machine lacks something: disk, memory, device."""


class ScriptError(MegavoxError):
    """A Python script that uses Megavox is not one that worker processes can import."""


class SiteError(MegavoxError):
    """A site refuses a job, or cannot be reached."""
