"""From files on disk to arrays: manifest, sources, phantom, audit, splits, image store."""
