"""A run before it runs: the real programs of an experiment, compiled for a machine that isn't there."""
