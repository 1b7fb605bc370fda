"""The random generators of a job: which there are, where each goes on, and which of them a step has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trax.errors import InvalidArgumentError
from trax.job.generators import State, Tracked, global_generators, kind_of, make
from trax.job.state import LoopState
from trax.job.steps import Steps
from trax.names import check_name


class Randomness:
    """The generators, by their keys: ``rng:`` and the user's name, or ``global:`` and the module."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.tracked: dict[str, Tracked] = {}
        self._seen: dict[str, Any] = {}
        """How each looked behind the last step of the present loop."""

    def rng(self, name: str, seed: Any, kind: str) -> Any:
        """The generator of that name, which is made if there is none."""
        key = f"rng:{check_name(name)}"
        if key not in self.tracked:
            self._track(key, make(kind, seed), must_match=seed is not None)
        else:
            self._check_same(key, make(kind, seed).take(), must_match=seed is not None)
        return self.tracked[key].generator

    def capture_global(self) -> None:
        found = global_generators()
        for key in self._steps.state["created"]:
            kind, _, name = key.partition(":")
            if kind == "global" and name not in found:
                text = (
                    f"the generators of {name} were captured when this job began, and {name} is not imported now: "
                    f"import it before job.capture_global_rng()."
                )
                raise InvalidArgumentError(text, path=self._steps.store.path, reason="not imported")
        for name, tracked in found.items():
            if f"global:{name}" not in self.tracked:
                self._track(f"global:{name}", tracked, must_match=False)

    def draw(self, name: str, create: Callable[[], Any]) -> Any:
        """The first value of a name, by ``create()``; the states of what that has drawn from are noted before the value
        is stored, which is then not drawn again.
        """
        before = self._states()
        value = create()
        drawn = {key: state for key, state in self._states().items() if state != before.get(key)}
        if drawn:
            self._steps.note({"drawn": {name: drawn}})
        return value

    def has_drawn(self, name: str) -> None:
        """The first value of the name was drawn by an earlier process: from here on the generators are behind that."""
        for key, state in self._steps.state["drawn"].get(name, {}).items():
            if key in self.tracked:
                self.tracked[key].put(state)

    def begin_loop(self, stored: LoopState | None) -> None:
        """From now on the generators are what they were behind the last step of this loop, if it had one."""
        self._seen.clear()
        for key, state in (stored["generators"] if stored else {}).items():
            if key in self.tracked:
                self.tracked[key].put(state)

    def changed(self, stored: LoopState | None) -> dict[str, State]:
        """The states of those that are not what the loop has stored."""
        changed = {}
        for key, tracked in self.tracked.items():
            look = tracked.glance()
            if key in self._seen and self._seen[key] == look:
                continue
            state = tracked.take()
            if stored is None or state != stored["generators"].get(key):
                changed[key] = state
            self._seen[key] = look
        return changed

    def _states(self) -> dict[str, State]:
        return {key: tracked.take() for key, tracked in self.tracked.items()}

    def _track(self, key: str, tracked: Tracked, *, must_match: bool) -> None:
        state = self._steps.state
        created, now = state["created"].get(key), tracked.take()
        if created is None:
            self._steps.note({"created": {key: now}})
        elif created != now:
            self._check_same(key, now, must_match=must_match)
            tracked.put(created)
        stored = state["loops"].get(self._steps.loop) if self._steps.loop is not None else None
        if stored is not None and key in stored["generators"]:
            tracked.put(stored["generators"][key])
        self.tracked[key] = tracked

    def _check_same(self, key: str, now: State, *, must_match: bool) -> None:
        """InvalidArgumentError unless the generator was made as one that is in this state."""
        created = self._steps.state["created"][key]
        if kind_of(created) != kind_of(now) or (must_match and created != now):
            text = (
                f"the generator {key.partition(':')[2]!r} was made with another seed or kind when this job began. "
                f"Give it those, or another name; to change them, begin a new job in another store."
            )
            raise InvalidArgumentError(text, path=self._steps.store.path, reason="seed or kind")
