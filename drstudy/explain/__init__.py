"""Heatmaps as measurements: class activation maps and their localisation measures."""
