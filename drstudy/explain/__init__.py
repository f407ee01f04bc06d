"""Heatmaps: methods that make them, measures of where they point, checks of whether they depend on what was learnt."""
