"""Methods that make heatmaps."""
