"""Checks of whether a heatmap depends on what was learnt."""
