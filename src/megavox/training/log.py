"""What a training tells: `metrics.jsonl` for machines, a live line for people, TensorBoard if installed."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from megavox.core.files import plain, write_text
from megavox.core.progress import console

LINE_EVERY_S = 20.0  # without a terminal


class TrainingLog:
    """Writes and shows the course of a training.

    Args:
        path: of metrics.jsonl.
        first_step: where this part of the run begins; later lines of an interrupted part are dropped.
        steps: of the whole run.
        metric: name of the headline metric.
        speak: whether to show anything (the first rank does).
    """

    def __init__(self, path: Path, *, first_step: int, steps: int, metric: str, speak: bool) -> None:
        self.path, self.steps, self.metric, self.speak = path, steps, metric, speak
        self.loss: float | None = None
        self.score: float | None = None
        self._last_line = self._start = time.monotonic()
        self._first = first_step
        self._bar: Any = None
        self._board: Any = None
        if not speak:
            return
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= first_step]
            write_text(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", buffering=1)
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=first_step)
        if console().is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(TextColumn("training    "), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"),
                                 console=console())
            self._task = self._bar.add_task("training", total=steps, completed=first_step, text="")
            self._bar.start()

    def step(self, step: int, loss: float, rate: float, samples_per_s: float, waiting: float) -> None:
        """After a step (counted from 1): loss, learning rate, samples/s, share of time waiting for data."""
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self._write(step, {"loss": loss, "learning_rate": rate, "samples_per_s": samples_per_s, "waiting": waiting})
        self._show(step, samples_per_s, waiting)

    def validation(self, step: int, scores: dict[str, float], seconds: float) -> None:
        """After a validation: all its scores."""
        self.score = scores.get(self.metric)
        self._write(step, {"validation": scores, "seconds": seconds})
        if self.speak and not self._bar:
            console().print(f"step {step} of {self.steps}: validation {self.metric} {_number(self.score)}")

    def close(self) -> None:
        """End the line and close the file."""
        if self._bar:
            self._bar.stop()
        if self.speak:
            self._file.close()
        if self._board:
            self._board.close()

    def _write(self, step: int, values: dict[str, Any]) -> None:
        if not self.speak:
            return
        self._file.write(json.dumps(plain({"step": step, **values})) + "\n")
        if self._board:
            flat = {**values, **values.get("validation", {})}
            for name, value in flat.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)

    def _show(self, step: int, samples_per_s: float, waiting: float) -> None:
        if not self.speak:
            return
        now = time.monotonic()
        left = (now - self._start) / max(step - self._first, 1) * (self.steps - step)
        text = (f"{step}/{self.steps}  loss {_number(self.loss)}  {self.metric} {_number(self.score)}  "
                f"{samples_per_s:.1f} samples/s  waiting {waiting:.0%}  {_duration(left)} left")
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        elif now - self._last_line > LINE_EVERY_S:
            self._last_line = now
            console().print(text, markup=False)


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a torn last line of a killed run
        return 1 << 62


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
