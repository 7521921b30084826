"""The whole schema, in one SQL file for each feature (`store/migrations/baseline`).

The files run in the order of their names, in one transaction. After the first release they stay as they
are: a change of the schema is a new migration.

Revision ID: 0001
Revises:
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BASELINE = Path(__file__).parents[1] / "baseline"


def upgrade() -> None:
    for feature in sorted(BASELINE.glob("*.sql")):
        op.execute(feature.read_text(encoding="utf-8"))
