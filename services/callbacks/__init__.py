"""The outbox: lanes woken when they have an event, delivered, and the callbacks listed and replayed.

Events go to webhooks (callbacks) or, as signals, to workflows that listen to messages. Both take the same
path: one lane for each endpoint, subjects in order, each result recorded.
"""
