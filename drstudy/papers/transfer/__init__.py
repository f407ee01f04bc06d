"""Nian & Jin 2025: transfer learning of DenseNet121, oversampling, Grad-CAM."""
