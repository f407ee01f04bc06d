"""Wang & Yang 2017: regression activation maps."""
