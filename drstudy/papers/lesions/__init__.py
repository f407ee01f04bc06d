"""Jiang et al. 2020: lesions as labels."""
