"""Receipts: stored by `ingest`, matched to parts by `match`, and applied to messages by `apply`.

`with_response` records a receipt together with its submit response. `candidates` reads what `match`
compares; `unmatched` has the receipts that wait to be matched again; `reads` shows those of a message.
"""
