"""TensorBoard: event files, written by the package tensorboard itself, without torch.

`torch.utils.tensorboard` needs that package too and adds the import of torch; tensorboardX is a copy kept apart.

Look at them with `tensorboard --logdir FOLDER/logs/tensorboard`. In its HPARAMS tab, the seeds of a cell form one
group, whose measures are averaged, so that a row is a cell.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagoftricks.loggers.base import LoggedRun, file_name, load

STATUS = ".status"
"""Ends the name of the event file that says how a run ended: TensorBoard believes the first such entry that it finds,
so that it must go when the run goes on."""


@dataclass
class _Open:
    writer: Any
    continued: bool
    """Whether an earlier attempt was logged, and nothing of this one yet."""


class TensorBoardLogger:
    """Writes one folder of event files a run: `<name>-<id>`."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder = folder / "logs" / "tensorboard"
        self._files, self._event, self._summary, self._hparams, self._data, self._meta, self._api = load(
            "tensorboard",
            "tensorboard.summary.writer.event_file_writer",
            "tensorboard.compat.proto.event_pb2",
            "tensorboard.compat.proto.summary_pb2",
            "tensorboard.plugins.hparams.summary_v2",
            "tensorboard.plugins.hparams.plugin_data_pb2",
            "tensorboard.plugins.hparams.metadata",
            "tensorboard.plugins.hparams.api_pb2",
        )
        self._runs: dict[str, _Open] = {}

    def start(self, run: LoggedRun) -> None:
        # a cell may have been renamed since: the id decides
        earlier = next(self.folder.glob(f"*-{run.id}"), None)
        place = earlier or self.folder / f"{file_name(run.name)}-{run.id}"
        for status in place.glob(f"*{STATUS}"):
            status.unlink()
        writer = self._files.EventFileWriter(str(place))
        self._runs[run.id] = _Open(writer, continued=earlier is not None)
        if earlier is None:
            # the seed is left out: equal values make a group
            self._write(writer, 0, self._hparams.hparams_pb({"cell": run.cell, **run.config}))

    def epoch(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        run = self._runs[run_id]
        if run.continued:  # what an attempt that died has logged from here on is void
            begin = self._event.SessionLog(status=self._event.SessionLog.START)
            run.writer.add_event(self._event.Event(wall_time=time.time(), step=step, session_log=begin))
            run.continued = False
        scalars = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(run.writer, step, self._summary.Summary(value=scalars))

    def finish(self, run_id: str, step: int, values: Mapping[str, float], status: str) -> None:
        if values:
            self.epoch(run_id, step, values)
        run = self._runs.pop(run_id)
        run.writer.close()
        if status == "interrupted":  # may go on: TensorBoard shows no status
            return
        code = self._api.STATUS_SUCCESS if status == "done" else self._api.STATUS_FAILURE
        end = self._data.SessionEndInfo(status=code, end_time_secs=time.time())
        about = self._meta.create_summary_metadata(self._data.HParamsPluginData(session_end_info=end))
        value = self._summary.Summary.Value(tag=self._meta.SESSION_END_INFO_TAG, metadata=about)
        writer = self._files.EventFileWriter(run.writer.get_logdir(), filename_suffix=STATUS)
        self._write(writer, step, self._summary.Summary(value=[value]))
        writer.close()

    def close(self) -> None:
        for run in self._runs.values():
            run.writer.close()

    def _write(self, writer: Any, step: int, summary: Any) -> None:
        writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))
        writer.flush()  # TensorBoard looks while it trains
