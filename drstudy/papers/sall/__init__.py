"""SALL: labels of one disease per photograph, and what the other disease's teacher adds (Ju et al. 2021)."""
