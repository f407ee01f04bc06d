"""Liu et al. 2021 (GLAM): a coarse map of the whole image proposes patches, and a second network segments inside them."""
