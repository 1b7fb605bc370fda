"""Records of a stream, fetched in batches, each processed to an end: a thin layer on the store.

.. code-block:: text

    stream ──fetch──► Consumer ──process──► the effect
                        │  ▲
                   claim│  │record
                        ▼  │
                      Checkpoint ──────────► Storage: status of the batch, data of its records

``tracker.py``     one record: its states, and the changes between them (values and functions)
``storage.py``     where status and records are kept: the protocol
``local.py``       the first storage: two names of a :class:`trax.Trax`
``agenda.py``      which record is next
``progress.py``    the batch in hand, in memory: threads, leases, one change of a record at a time
``checkpoint.py``  :class:`Checkpoint`: what a stream's state is, and may become
``consumer.py``    :class:`Consumer`: the loop
``background.py``  the renewal of leases, and signals
``options.py``     what a caller may ask for
``clock.py``       time

It is imported by its own name: ``import trax`` does not.
"""

from trax.consumer.checkpoint import Checkpoint
from trax.consumer.clock import Clock
from trax.consumer.consumer import Consumer, Effect
from trax.consumer.local import LocalStorage, streams
from trax.consumer.storage import Batch, Storage, Summary
from trax.consumer.tracker import Failure, Lease, Status, Tracker

__all__ = [
    "Batch",
    "Checkpoint",
    "Clock",
    "Consumer",
    "Effect",
    "Failure",
    "Lease",
    "LocalStorage",
    "Status",
    "Storage",
    "Summary",
    "Tracker",
    "streams",
]
