"""The consumer's side of the ``unistream`` library, on :mod:`trax.consumer`.

``import trax.compat.unistream as unistream`` takes the place of ``import unistream.api as unistream`` in a program that
has consumers and checkpoints. The names, fields and methods are those of the library; the loop is
:class:`trax.consumer.Consumer`, for which a :class:`BaseCheckPoint` is a storage like others:

``records.py``     records
``checkpoint.py``  statuses, trackers, checkpoints: as the library's users know them
``storage.py``     a checkpoint as a :class:`trax.consumer.Storage`
``consumer.py``    consumers

So a checkpoint class of the user's own goes on working, as well as its ``dump`` methods allow. What is different is
said in ``docs/how-to/from-unistream.rst``.
"""

from trax.compat.unistream.checkpoint import T_POINTER, BaseCheckPoint, SimpleCheckpoint, StatusEnum, Tracker
from trax.compat.unistream.consumer import BaseConsumer, SimpleConsumer
from trax.compat.unistream.records import BaseRecord, DataClassRecord, ProcessError, StreamIsClosedError

__all__ = [
    "T_POINTER",
    "BaseCheckPoint",
    "BaseConsumer",
    "BaseRecord",
    "DataClassRecord",
    "ProcessError",
    "SimpleCheckpoint",
    "SimpleConsumer",
    "StatusEnum",
    "StreamIsClosedError",
    "Tracker",
]
