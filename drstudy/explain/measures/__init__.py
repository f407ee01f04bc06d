"""Measures of where a heatmap points."""
