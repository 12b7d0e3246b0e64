"""The tags of runs."""

EXPERIMENT_TAG = "fomo/experiment"  # the experiment or sweep that a run brings up to date
