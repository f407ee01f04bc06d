"""A question of this study: one eye at a time, looked at through the systems of all papers (notebook 23)."""
