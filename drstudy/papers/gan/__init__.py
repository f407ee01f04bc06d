"""GAN oversampling: the conditional, transfer-learned GAN that the main paper announces (``docs/sources.md``, A7)."""
