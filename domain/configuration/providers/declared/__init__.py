"""The section of a declared provider (`type = "http"`): an HTTP API described in the configuration.

What an API's requests, responses and receipts look like is data here, and is read without I/O, so that the samples of
a section can be tried when the configuration is checked. `providers/declared.py` sends and receives by it.
"""
