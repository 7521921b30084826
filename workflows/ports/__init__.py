"""The inputs, signals and activities of each workflow."""
