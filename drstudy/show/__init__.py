"""Figures and tables that several notebooks share, and the look of the study."""
