"""``python -m trax``: the same as the command ``trax``."""

import sys

from trax.cli import main

sys.exit(main())
