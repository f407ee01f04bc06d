"""All systems of the papers on the same test eyes (notebook 20)."""
