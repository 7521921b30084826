"""Callbacks to customers: where they go, what they hold, how they are signed and tried again.

Everything here is pure: `connectors/webhooks.py` resolves names and opens sockets.
"""
