"""Sweeps: named arms at one budget, run to the end and told on one page."""
