"""The version of this library, which the wheel is given and the user agent names."""

__version__ = "0.1.0"
