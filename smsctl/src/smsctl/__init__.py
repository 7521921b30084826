"""The command line of the SMS gateway."""

__version__ = "0.1.0"
