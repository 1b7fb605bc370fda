"""The version of the package, in the one place that setup.py and the package itself read."""

__version__ = "0.1.0"
