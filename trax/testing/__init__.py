"""Tools that look for a crash that a store does not survive: for trax's own tests, and for those of its users.

``recording``         a file system that writes down every operation of a real run
``disks``             the states in which a power loss may leave the disk after any of them
``clock``             time for tests of consumers, which passes when they say so
``consumer_storage``  what every storage of a consumer's checkpoint must do, as tests to inherit
"""
