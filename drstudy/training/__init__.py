"""The loop, and what it is fed: recipes, features, sampling, transforms, inference."""
