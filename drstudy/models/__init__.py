"""What is trained: backbones, heads and which of their layers move."""
