"""A store in a directory of a local file system; ``docs/format.rst`` documents every byte of it.

===============  ====================================================================================
``fs.py``        the only caller of the operating system's file functions
``framing.py``   headers of segments and frames, as pure functions
``payload.py``   records to the payload of a frame and back, as pure functions
``segment.py``   one log file: appended to by a writer, walked and judged by a scan
``snapshot.py``  the commit point: one file, replaced whole
``blob.py``      one large value in a file of its own, written; ``blob_reader.py`` reads it
``lock.py``      one writer at a time, and who it is
``view.py``      the read path: one generation of the store, held open
``opening.py``   what a crash left behind is judged, and what was not proven durable written again
``directory.py`` the directory as a whole: append, sync, publish, discard
===============  ====================================================================================

A record comes in at ``directory.append``, is made durable by ``directory.sync``, and comes back through a ``view``.
"""
