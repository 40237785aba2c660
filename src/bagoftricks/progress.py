"""Progress on standard error: bars on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from bagoftricks.console import IMAGES_BETWEEN_LINES, duration, measures, size
from bagoftricks.terminal import error_console

if TYPE_CHECKING:
    from bagoftricks.studies.engine import Event
    from bagoftricks.studies.plan import Run

SECONDS_BETWEEN_LINES = 5.0
ENDS = {"done": "done in {duration}", "found": "done by another process", "failed": "FAILED: {text}"}


class _Bar:
    """A progress bar on a terminal, nothing elsewhere; lines printed to `console` pass above it."""

    def __init__(self, description: str) -> None:
        self.console = error_console()
        self.started = time.monotonic()
        self.waits = False
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]} left"))
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task(description, total=None, left="?")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def move(self, done: int, total: int, before: int = 0) -> str:
        """Moves the bar and returns the time left, for people; `before` of what is done was done at an earlier time."""
        left = "an unknown time"
        if done > before:
            left = duration((time.monotonic() - self.started) / (done - before) * max(0, total - done))
        self.bar.update(self.task, completed=done, total=total, left=left)
        return left

    def on_image(self, done: int) -> None:
        """Says how many images are decoded, now and then; once where another process decodes them."""
        if done == 0:
            if not self.waits:
                self.console.print(Text("another process is decoding the images; waiting for it"))
            self.waits = True
        elif done % IMAGES_BETWEEN_LINES == 0:
            self.console.print(Text(f"decoded {done:,} images"))
        self.started = time.monotonic()  # the time left is of training

    def on_adapt(self, done: int, total: int) -> None:
        """Moves the bar while initial weights are adapted; a line at every quarter, and one for another process."""
        if total == 0:
            if not self.waits:
                self.console.print(Text("another process is adapting the initial weights; waiting for it"))
            self.waits = True
            return
        left = self.move(done, total)
        if done % max(1, total // 4) == 0:
            self.console.print(Text(f"adapting the initial weights: {done} of {total} batches, {left} left"))
        if done == total:
            self.started = time.monotonic()


class AdaptProgress(_Bar):
    """Shows weights being adapted."""

    def __init__(self) -> None:
        super().__init__("adapting")


class StudyProgress(_Bar):
    """Shows a study at work: a line for each epoch and each finished run, with images per second and time left."""

    def __init__(self, missing: Sequence[Run]) -> None:
        super().__init__("study")
        self.total, self.finished = len(missing), 0
        self.epochs = {run.id: run.cell.recipe.epochs for run in missing}
        self.done_epochs = dict.fromkeys(self.epochs, 0)
        self.before = dict.fromkeys(self.epochs, 0)
        """Epochs of earlier attempts, whose rows a run that continues tells again, and of other processes."""
        self.weights: set[str] = set()

    def on_event(self, event: Event) -> None:
        """Prints a line for initial weights, an epoch, a finished or a failed run, and for what delays one."""
        name, epochs = event.task.name, event.task.recipe.epochs
        model = event.task.recipe.model.name
        if event.kind == "weights" and model not in self.weights:
            self.weights.add(model)
            self.console.print(Text(f"Initial weights of {model}: {event.text}"))
        elif event.kind == "epoch":
            row = event.row
            if row.get("train_s", 0.0) > event.seconds:  # longer than its process is at work
                self.before[event.task.id] = int(row["epoch"])
            left = self._done(event.task.id, int(row["epoch"]))
            line = f"  {name}: epoch {row['epoch']} of {epochs}, {measures(row, 'eval_')}"
            self.console.print(Text(f"{line}, {row['images_per_s']:.0f} images/s, {left} left in all"), style="dim")
        elif event.kind == "busy":
            self.console.print(Text(f"{name}: another process is training it"))
        elif event.kind in ("retrying", "memory"):
            self.console.print(Text(f"{name}: {event.text}"))
        elif event.kind in ENDS:
            self.finished += 1
            if event.kind == "found":
                self.before[event.task.id] = epochs
            self._done(event.task.id, epochs)
            what = ENDS[event.kind].format(duration=duration(event.seconds), text=event.text)
            self.console.print(Text(f"[{self.finished}/{self.total}] {name}: {what}"))

    def _done(self, run_id: str, epochs: int) -> str:
        """Moves the bar to so many epochs of a run, and returns the time left."""
        self.done_epochs[run_id] = epochs
        before = sum(self.before.values())
        return self.move(sum(self.done_epochs.values()), sum(self.epochs.values()), before)


class TrainProgress(_Bar):
    """Shows one training: a bar on a terminal, a line an epoch."""

    def __init__(self, epochs: int, what: str = "training") -> None:
        super().__init__(what)
        self.epochs, self.before = epochs, 0

    def on_weights(self, summary: str, warning: str) -> None:
        """Says what became of the initial weights."""
        self._tell("Initial weights", summary, warning)

    def on_teacher(self, summary: str, warning: str) -> None:
        """Says whom the network learns from."""
        self._tell("Teacher", summary, warning)

    def _tell(self, what: str, summary: str, warning: str) -> None:
        self.console.print(Text(f"{what}: {summary}"))
        if warning:
            self.console.print(Text(f"Warning: {warning}"))

    def on_resume(self, step: int, total: int) -> None:
        """Says that an earlier attempt is continued."""
        self.before = step
        self.say(f"continuing after step {step:,} of {total:,}, from a checkpoint")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.console.print(Text(text))

    def on_step(self, done: int, total: int) -> None:
        """Moves the bar."""
        self.move(done, total, self.before)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Prints an epoch's measures."""
        left = (row["train_s"] + row["eval_s"]) * (self.epochs - row["epoch"])
        line = f"epoch {row['epoch']} of {self.epochs}: train loss {row['train_loss']:.3f}, {measures(row, 'eval_')}"
        self.console.print(Text(f"{line}, {row['images_per_s']:.0f} images/s, {duration(left)} left"))


class DownloadProgress(_Bar):
    """Shows a download: a bar on a terminal, a line now and then elsewhere; then that it is unpacked."""

    def __init__(self, name: str) -> None:
        super().__init__(f"downloading {name}")
        self.said = 0.0
        self.unpacking = False

    def on_bytes(self, done: int, total: int | None) -> None:
        """Moves the bar, or says how far it is."""
        if total and done:
            self.move(done, total)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.said > SECONDS_BETWEEN_LINES:
            self.said = now
            self.console.print(Text(f"downloaded {size(done)}" + (f" of {size(total)}" if total else "")))

    def on_file(self, count: int, name: str) -> None:
        """Says once that unpacking has begun."""
        if not self.unpacking:
            self.console.print(Text("unpacking"))
        self.unpacking = True
