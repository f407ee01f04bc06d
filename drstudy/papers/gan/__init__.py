"""Generated photographs for rare grades: the conditional GAN by transfer learning that Nian & Jin 2025 announce."""
