"""Training and inference: tasks, the loop, checkpoints, the trained-model store, recipes, features, sampling, augmentation."""
