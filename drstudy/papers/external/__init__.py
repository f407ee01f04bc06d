"""Real photographs and other cameras: train on one set, test on another (notebook 22)."""
