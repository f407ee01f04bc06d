"""How many stored views of an image are enough: a question of this study."""
