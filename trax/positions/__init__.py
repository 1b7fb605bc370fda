"""How far each event log has been read, kept in a YAML file that a thread writes in the background.

The model is the package ``checkpoint`` of Elastic's winlogbeat, whose files open here. What is new are the promises:

- One process at a time may write to a file; another is refused with the owner's name.
- The file is replaced whole: written beside, synced, renamed, and the directory synced. A crash anywhere leaves the old
  file or the new one. The generation before it stays beside it, as ``<file>.previous``.
- What a crash can take are the updates since the last flush: at most ``max_updates`` of them, and none that is older
  than ``interval_s`` and the time of one write. Nothing older.
- A flush that fails is tried again, and is raised to the caller. Nothing is only written to a log.
- An empty, truncated or foreign file is an error. It is never taken for a fresh start.

``states``    what is known of an event log
``document``  states to YAML and back
``file``      the file: held by one process, replaced whole
``keeper``    the states in memory, and the thread that brings them to the file
``handle``    what users hold
"""

from trax.positions.file import read
from trax.positions.handle import Positions
from trax.positions.states import EventLogState, PersistedState

__all__ = ["EventLogState", "PersistedState", "Positions", "read"]
