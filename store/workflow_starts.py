"""The budget of workflow starts, one row for all processes (GCRA: ITU-T I.371, annex A)."""

from dataclasses import dataclass

from store.database import Connection, PendingResult, sql
from store.rows import Query


@dataclass(frozen=True, slots=True)
class Taken:
    """How many starts were granted, and how many seconds the budget is ahead of its rate since."""

    starts: int
    ahead: float


# `theoretical` is when the row would be level with its rate again, in seconds since 1970: the later
# it is, the more was taken. The clock is the database's, since that of each process is another one.
_BEGAN = """
greatest(s.theoretical, extract(epoch FROM clock_timestamp())::double precision)
"""
_ROW = "extract(epoch FROM clock_timestamp()) + CAST(:interval AS double precision)"

_TAKE = Query.of(
    Taken,
    f"""
INSERT INTO workflow_starts AS s (one, theoretical, granted) VALUES (true, {_ROW}, 1)
ON CONFLICT (one) DO UPDATE
SET (theoretical, granted) = (
    SELECT began + granted * CAST(:interval AS double precision), granted
    FROM (SELECT began, greatest(0, least(:wanted, floor(
                     :burst - (began - extract(epoch FROM clock_timestamp()))
                              / CAST(:interval AS double precision) + 0.001)))::integer AS granted
          FROM (SELECT {_BEGAN} AS began) level) may)
RETURNING granted AS starts,
          theoretical - extract(epoch FROM clock_timestamp())::double precision AS ahead
""",
)

_SPEND = sql(f"""
INSERT INTO workflow_starts AS s (one, theoretical, granted) VALUES (true, {_ROW}, 1)
ON CONFLICT (one) DO UPDATE
SET theoretical = least(extract(epoch FROM clock_timestamp()) + :most,
                        {_BEGAN} + :starts * CAST(:interval AS double precision))
""")


def take(connection: Connection, *, rate: float, burst: int, wanted: int) -> PendingResult[Taken]:
    """Take workflow starts, as far as they are there.

    Args:
        connection: in a transaction of its own, since the row is locked until its end.
        rate: starts a second, over all processes.
        burst: how many may be taken at once after a rest.
        wanted: how many, at most.
    """
    values = {"interval": 1 / rate, "burst": burst, "wanted": wanted}
    return _TAKE.row(connection, values).then(_taken)


def spend(connection: Connection, *, rate: float, starts: float, most: float) -> None:
    """Count starts, or what weighs as much, whether or not they are there.

    Nobody is granted any until they are made up for, which takes no longer than `most` seconds
    after a rest.
    """
    connection.send(_SPEND, {"interval": 1 / rate, "starts": starts, "most": most})


def _taken(taken: Taken | None) -> Taken:
    if taken is None:
        message = "the budget of workflow starts was neither found nor added"
        raise LookupError(message)
    return taken
