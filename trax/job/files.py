"""The output files of a job: where each was at the last commit, and how it comes to be there again."""

from __future__ import annotations

import os
from collections.abc import Iterator

from trax.errors import InvalidArgumentError, OutputFileError
from trax.job.outputs import AppendedFile
from trax.job.state import STATE, Position
from trax.job.steps import Steps
from trax.storage.local.fs import FileSystem


class OutputFiles:
    """The files that are open, by their paths from the directory that the store is in.

    A link is followed, as by ``open()``, and known by its own name. However the directories above are reached, a file
    has the same path.
    """

    def __init__(
        self, steps: Steps, checkpointed: dict[str, Position], fs: FileSystem, *, syncs_each_step: bool
    ) -> None:
        self._steps, self._checkpointed, self._fs = steps, checkpointed, fs
        self._syncs_each_step = syncs_each_step
        self.opened: dict[str, AppendedFile] = {}

    def open(self, path: str, *, is_repeating: bool) -> AppendedFile:
        """The file, as the last commit names it; ``is_repeating`` until the job comes to the loop that it resumes."""
        directory, name = os.path.split(path)
        beside = os.path.realpath(os.path.dirname(self._steps.store.path))
        key = os.path.relpath(os.path.join(os.path.realpath(directory), name), beside)
        if key not in self.opened:
            self.opened[key] = self._opened(key, os.path.realpath(path), is_repeating)
        return self.opened[key]

    def resume(self) -> None:
        """The job has come to the loop that it resumes: from now on what is written is new."""
        for file in self.opened.values():
            file.is_repeating = False

    def changed(self, *, checkpoints: bool) -> dict[str, Position]:
        """Hand over what was written, before the commit that names it; the positions that have changed."""
        sync = self._syncs_each_step or checkpoints
        positions = {key: file.bring(sync=sync) for key, file in self.opened.items()}
        return {key: position for key, position in positions.items() if position is not None}

    def sync(self) -> None:
        """All that was written is on stable storage, as it must be before a checkpoint."""
        for file in self.opened.values():
            file.sync()

    def close(self) -> None:
        for file in self.opened.values():
            file.close()

    def _opened(self, key: str, path: str, is_repeating: bool) -> AppendedFile:
        store = os.path.realpath(self._steps.store.path)
        if os.path.commonpath([store, path]) == store:
            text = f"{path} lies in the store: its files are trax's alone. Put output files beside it."
            raise InvalidArgumentError(text, path=path, reason="in the store")
        for other, file in self.opened.items():
            if file.path == path:
                text = f"{key} and {other} are links to the same file, {path}. Open it by one name."
                raise InvalidArgumentError(text, path=path, reason="opened by another name")
        stored = self._steps.state["files"].get(key)
        if stored is not None and self._fs.kind(path) == "absent":
            text = (
                f"{path} is missing: the job has written {stored[0]:,} bytes to it. Put the file back, or begin a new "
                f"job in another store."
            )
            raise OutputFileError(text, path=path, reason="missing")
        file = AppendedFile(self._fs, path)
        try:
            if stored is None:
                self._steps.note({"files": {key: file.begin()}})
            else:
                file.roll_back(self._positions(key))
                # Nothing is left out of a file that no step has written to: it may be new to a job that is not.
                file.is_repeating = bool(stored[2]) and is_repeating
        except BaseException:
            file.close()
            raise
        return file

    def _positions(self, key: str) -> Iterator[Position]:
        """Where the file was: at the checkpoint of the job's state, then as the log has it."""
        if key in self._checkpointed:
            yield self._checkpointed[key]
        for _, entry in self._steps.store.entries(STATE):
            if isinstance(entry, list) and key in entry[2].get("files", {}):
                yield entry[2]["files"][key]
