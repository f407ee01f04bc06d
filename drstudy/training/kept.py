"""The trained-model store: a finished training is found again instead of being repeated.

``<data>/models/<key>.safetensors`` holds the weights of the kept epoch, the history and what the training cost. The key is a digest of
everything that decides the result (:mod:`drstudy.training.identity`), so a stage that runs again because a figure, a table or a sentence
changed finds its networks and takes seconds; a change of the recipe, the data, the starting weights or the code that trains is another key.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from drstudy.core import paths
from drstudy.training import tensors
from drstudy.training.identity import Identity


def path_of(identity: Identity) -> Path:
    """Path of a training in the store, whether it exists or not."""
    return paths.trained(identity.key)


def find(identity: Identity) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Facts and learned tensors of a finished training, or ``None`` if the store has none.

    A file that cannot be read is removed, so that the network is trained again.
    """
    path = path_of(identity)
    if not path.is_file():
        return None
    try:
        return tensors.read_facts(path)["facts"], tensors.read_tensors(path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        print(
            f"{paths.show(path)} cannot be read ({error}); it is removed, and the network is trained again."
        )
        path.unlink(missing_ok=True)
        return None


def keep(identity: Identity, facts: dict[str, Any], learned: dict[str, Tensor]) -> None:
    """Write a finished training atomically.

    Args:
        identity: Identity of the training; written into the file, so that a reader sees what made it.
        facts: JSON-ready history and costs.
        learned: Tensors of the kept epoch, from :meth:`drstudy.training.task.Task.learned`.
    """
    about = {"identity": dataclasses.asdict(identity), "facts": facts}
    tensors.write(path_of(identity), learned, about)
