"""The loop: fetch a batch, bring each of its records to an end, fetch the next.

Every worker runs the same few lines: claim a record, process it, say what became of it. The thread that calls is one of
the workers, so with ``workers=1`` everything of the user's runs in it. Between two records a worker looks whether it is
to stop.

What a crash leaves is the same as what a stop leaves, but for the records in the middle of an attempt: they are pending
again, and the attempt counts. ``process`` is called at least once for every record, and more than once only after a
failure, a crash, or a lease that ran out.
"""

from __future__ import annotations

import logging
import random
import reprlib
import signal
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from trax.consumer.background import hearing, repeating
from trax.consumer.checkpoint import REFUSED, Checkpoint
from trax.consumer.options import check_count, check_seconds
from trax.consumer.storage import Summary
from trax.consumer.tracker import Status, Tracker
from trax.errors import ConflictError, ExhaustedError, InvalidArgumentError, ReentrantCallError, UnknownRecordError

logger = logging.getLogger("trax")

Ending = Literal["ended", "stopped", "max_batches"]
_RENEWALS = 3  # in the time of a lease
_SLICE_S = 0.2  # a signal handler can't wake a waiting thread, so none waits longer without looking


class Effect:
    """What ``process`` returns to have it saved in one commit with the record's success: both are true, or neither.

    On a trax store, entries for names of the user's own: ``Effect(total=5)``, as :meth:`trax.Trax.log` takes them. On
    another storage, whatever that understands.
    """

    def __init__(self, what: Any = None, /, **entries: Any) -> None:
        self.what = {**(what or {}), **entries} if entries else what


class Consumer(ABC):
    """Brings every record of a stream to an end. Subclass it: :meth:`fetch` and :meth:`process` are yours.

    ``limit``
        How many records :meth:`fetch` is asked for at a time.
    ``workers``
        How many threads process the records of a batch; the calling thread is one of them.
    ``ordered``
        Begin with a record only when all before it have ended, and stop, with an ExhaustedError, at one that is
        exhausted, until ``checkpoint.skip()`` or ``checkpoint.retry()`` decides about it.
    ``poll_s``
        How long :meth:`run` waits when the stream has nothing new.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, limit: int = 100, workers: int = 1, ordered: bool = False, poll_s: float = 1.0
    ) -> None:
        check_count("limit", limit, 1)
        check_count("workers", workers, 1)
        check_seconds("poll_s", poll_s)
        if ordered and workers > 1:
            text = f"ordered=True has one record in progress at a time, so {workers} workers make no sense: leave one."
            raise InvalidArgumentError(text, reason="ordered with workers")
        self.checkpoint = checkpoint
        self.limit = limit
        self.workers = workers
        self.ordered = ordered
        self.poll_s = poll_s
        self._stopping = False
        self._working: set[int] = set()
        checkpoint.keep_order(ordered)

    # The user's part

    @abstractmethod
    def fetch(self, pointer: Any, limit: int) -> tuple[Iterable[Any], Any]:
        """Records from ``pointer`` on, about ``limit`` of them, and the pointer to what follows; None: the stream ends.

        Nothing new: no records and the same pointer. Called again with the same pointer until the batch is saved.
        The pointer is yours to change.
        """

    @abstractmethod
    def process(self, record: Any) -> Any:
        """Do with one record what is to be done; an exception is a failed attempt.

        May return an :class:`Effect`; anything else is ignored. With several workers, called by several threads.
        """

    def dead_letter(self, record: Any, tracker: Tracker) -> None:
        """Take a record that is exhausted; called until it returns without an exception.

        The batch does not end before. This one writes a line to the logger ``trax``.
        """
        error = tracker.errors[-1].error if tracker.errors else "no attempt is left"
        logger.error("the record %r is exhausted after %d attempts: %s", tracker.record_id, tracker.attempts, error)

    def backoff(self, attempt: int) -> float:
        """Seconds until the attempt, or delivery, after number ``attempt``: 1, 2, 4, … 60, less up to a half."""
        return float(min(60, 2 ** min(attempt - 1, 6)) * random.uniform(0.5, 1))

    def record_id(self, record: Any) -> str:
        """The id of a record, a ``str``, once in its batch: its item ``id`` if it is a mapping, else its attribute."""
        try:
            found: str = record["id"] if isinstance(record, Mapping) else record.id
        except (KeyError, AttributeError) as error:
            text = f"{reprlib.repr(record)} has no id: give it an item or attribute 'id', or define record_id()."
            raise InvalidArgumentError(text, reason="no id") from error
        return found

    def on_record(self, record: Any, tracker: Tracker) -> None:  # noqa: B027 (most have none)
        """Called, for metrics, after each attempt and delivery, when its outcome is saved; not again after a crash."""

    def on_batch(self, summary: Summary) -> None:  # noqa: B027 (most have none)
        """Called, for metrics, when a batch has ended; not again after a crash."""

    # Running

    def run(self, max_batches: int | None = None) -> Ending:
        """Process batch after batch; says why it returned.

        ``"ended"``: the stream has come to its end. ``"stopped"``: :meth:`stop` was called, or the main thread, running
        this, got SIGTERM or SIGINT; a second signal does what it always does. ``"max_batches"`` with records are done.
        """
        done = 0
        try:
            with hearing((signal.SIGTERM, signal.SIGINT), self.stop):
                while not self.checkpoint.ended and not self._stopping and done != max_batches:
                    summary = self._process_batch()
                    if summary is not None and summary.counts:
                        done += 1
                    elif not self.checkpoint.ended:
                        self._pause()
            if self._stopping:
                return "stopped"
            return "ended" if self.checkpoint.ended else "max_batches"
        finally:
            self._stopping = False

    def process_batch(self) -> Summary | None:
        """Bring the present batch to its end, or fetch one if it has ended; the batch in figures.

        None if there is nothing to do (``checkpoint.ended``, or nothing new), or :meth:`stop` was called. Raises what
        ``fetch``, the hooks and the storage raise, and ExhaustedError; what ``process`` and ``dead_letter`` raise
        becomes part of the record's tracker.
        """
        try:
            return self._process_batch()
        finally:
            self._stopping = False

    def stop(self) -> None:
        """Return from ``run()`` or ``process_batch()`` as soon as no record is in the middle of an attempt.

        From any thread, or from a signal handler. If neither is running, the next one returns at once.
        """
        self._stopping = True

    # How it is done

    def _process_batch(self) -> Summary | None:
        if threading.get_ident() in self._working:
            text = (
                "process(), or another method of a consumer, has called run() or process_batch() of the same consumer."
            )
            raise ReentrantCallError(text, reason="called from inside a call")
        if self._stopping:
            return None
        self.checkpoint.save_outcomes()
        if self.checkpoint.shared:
            self.checkpoint.refresh()
        self._check_order(self.checkpoint.trackers() if self.ordered else [])
        if self.checkpoint.finished and not self._begin():
            return None
        self._bring_to_an_end()
        summary = self.checkpoint.summary()
        if summary is None or not self.checkpoint.finished:
            return None
        self.on_batch(summary)
        return summary

    def _begin(self) -> bool:
        """Fetch the next batch; whether there is one to work on."""
        if self.checkpoint.ended:
            return False
        fetched, next_pointer = _pair(self.fetch(self.checkpoint.pointer, self.limit))
        records = [(self.record_id(record), record) for record in fetched]
        if not records and next_pointer is not None and next_pointer == self.checkpoint.pointer:
            return False
        return self.checkpoint.begin(records, next_pointer) or not self.checkpoint.finished

    def _bring_to_an_end(self) -> None:
        failures: list[BaseException] = []
        threads = [
            threading.Thread(target=self._work, args=[failures], name=f"trax-worker-{number}", daemon=True)
            for number in range(1, self.workers)
        ]
        with repeating(partial(self._renew, failures), self.checkpoint.lease_s / _RENEWALS, self.checkpoint.clock):
            try:
                for thread in threads:
                    thread.start()
                self._work(failures)
                for thread in threads:
                    thread.join()
            except BaseException as error:  # an interrupt: the others shall not go on alone
                failures.append(error)
        if failures:
            for another in failures[1:]:
                failures[0].add_note(f"trax: meanwhile, in another thread: {another!r}")
            raise failures[0]

    def _work(self, failures: list[BaseException]) -> None:
        """Work on records until the batch has ended, this consumer is to stop, or something has failed."""
        token, thread = uuid.uuid4().hex, threading.get_ident()
        try:
            self._working.add(thread)
            while not self._stopping and not failures:
                if (claimed := self.checkpoint.claim(token)) is not None:
                    self._attempt(claimed)
                    self.checkpoint.let_go(token)
                elif self.checkpoint.finished:
                    return
                else:
                    self._wait()
        except BaseException as error:
            failures.append(error)
        finally:
            self._working.discard(thread)
            self.checkpoint.let_go(token)

    def _attempt(self, claimed: Tracker) -> None:
        try:
            record = self.checkpoint.record(claimed.record_id)
            changed = self._try(claimed, record)
        except (ConflictError, UnknownRecordError):  # others have brought the batch to its end
            changed = None
        if changed is None:
            logger.warning("the lease of the record %r ran out, and another process has it", claimed.record_id)
            return
        self.on_record(record, changed)
        self._check_order([changed])

    def _try(self, claimed: Tracker, record: Any) -> Tracker | None:
        """Process the record, or hand it on, and save what became of it."""
        result = None
        try:
            if claimed.status is Status.EXHAUSTED:
                self.dead_letter(record, claimed)
            else:
                result = self.process(record)
        except Exception as error:
            return self._fail(claimed, error)
        except BaseException:  # an interrupt is nothing that the record has done
            self.checkpoint.release(claimed)
            raise
        if claimed.status is Status.EXHAUSTED:
            return self.checkpoint.deliver(claimed)
        effect = result.what if isinstance(result, Effect) else None
        try:
            return self.checkpoint.succeed(claimed, effect)
        except REFUSED as error:
            return self._fail(claimed, error)

    def _fail(self, claimed: Tracker, error: Exception) -> Tracker | None:
        backoff_s = self.backoff(claimed.deliveries or claimed.attempts)
        if not isinstance(backoff_s, int | float) or not backoff_s <= threading.TIMEOUT_MAX:
            text = f"backoff() returns a number of seconds that somebody can wait for, and not {backoff_s!r}."
            raise InvalidArgumentError(text, reason="backoff") from error
        return self.checkpoint.fail(claimed, error, max(0, backoff_s))

    def _check_order(self, trackers: Iterable[Tracker]) -> None:
        for tracker in trackers:
            if self.ordered and tracker.status is Status.EXHAUSTED and tracker.ended:
                text = (
                    f"the record {tracker.record_id!r} is exhausted, and the stream keeps its order: nothing behind it "
                    f"is processed until checkpoint.skip() or checkpoint.retry() has decided about it."
                )
                raise ExhaustedError(text, reason="exhausted", record_id=tracker.record_id)

    def _wait(self) -> None:
        """For a record to be due, or for others to end theirs."""
        self.checkpoint.wait(_SLICE_S)
        if self.checkpoint.shared:
            self.checkpoint.refresh()

    def _renew(self, failures: list[BaseException]) -> None:
        try:
            self.checkpoint.renew()
        except Exception as error:
            failures.append(error)

    def _pause(self) -> None:
        clock, condition = self.checkpoint.clock, threading.Condition()
        until = clock.now() + timedelta(seconds=self.poll_s)
        while not self._stopping and (seconds := (until - clock.now()).total_seconds()) > 0:
            with condition:
                clock.wait(condition, min(seconds, _SLICE_S))


def _pair(fetched: object) -> tuple[Iterable[Any], Any]:
    if isinstance(fetched, tuple) and len(fetched) == 2:
        records = fetched[0]
        if isinstance(records, Iterable) and not isinstance(records, str | bytes | Mapping):
            return fetched
    text = f"fetch() returns (records, next_pointer), the records one after the other, not {reprlib.repr(fetched)}."
    raise InvalidArgumentError(text, reason="not a pair")
