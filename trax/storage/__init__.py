"""Where encoded records and values are kept. ``base`` says what a storage is; ``local`` is a directory of files."""
