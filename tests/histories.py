"""Temporal's histories, read as text: what stands in them for everybody who may look at Temporal."""

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import Message
from temporalio.client import WorkflowHistory


def texts_of(history: WorkflowHistory) -> Iterator[str]:
    """Every text of every event: payloads decoded, failures, names, ids, summaries, headers."""
    return texts_in(history.events)


def texts_in(value: object) -> Iterator[str]:
    """Every text in a message of protobuf, or in several; bytes are read as UTF-8."""
    match value:
        case str():
            yield value
        case bytes():
            yield value.decode("utf-8", "replace")
        case Message():
            for _, content in value.ListFields():
                yield from texts_in(content)
        case Mapping():
            for pair in value.items():
                yield from texts_in(pair)
        case Sequence():
            for content in value:
                yield from texts_in(content)
