"""The exit codes of every command; ``docs/how-to/command-line.rst`` lists them."""

OK = 0
FAILED = 1
"""A problem was found, or the command could not do what it was asked for."""
WRONG_USAGE = 2
"""What argparse exits with."""
NOT_CONFIRMED = 3
INTERRUPTED = 130
