"""The embedded stack: a real Temporal, a real Postgres, simulators, workers and API as children."""
