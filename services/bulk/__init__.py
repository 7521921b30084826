"""Messages that one runner sends together: planned, claimed, handed to a provider, recorded.

`domain.delivery.decide` decides about each message, as for a single one. Here its decisions are applied
to many rows per statement. The progress of a bulk is stored in its rows alone, so that any worker can
continue it after a crash.

`planner` decides what to send, `claims` claims it, `sender` hands it to a provider within `limits`, and
`outcomes` records the responses.
"""
