"""`python -m smsctl`."""

from smsctl.main import run

run()
