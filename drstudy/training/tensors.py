"""Files of tensors that say what they are: safetensors with JSON facts in the metadata, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from drstudy.core import paths

FACTS = "drstudy"
"""Name of the facts in the metadata."""


class BrokenFileError(ValueError):
    """A file of tensors cannot be read."""


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts atomically.

    Args:
        path: File; its folder is made where it is missing.
        tensors: Tensors by name, on any device.
        facts: JSON-ready facts, which :func:`read_facts` returns.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with paths.atomic(path) as temporary:
        save_file(plain, temporary, metadata={FACTS: json.dumps(facts)})


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a file, without its tensors; ``None`` if it has none.

    Raises:
        FileNotFoundError: If there is no such file.
        BrokenFileError: If it is not a whole safetensors file, or its facts are no JSON.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(FACTS)
        facts = None if text is None else json.loads(text)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise BrokenFileError(f"{paths.show(path)} is not a whole safetensors file ({error}).") from error
    if facts is not None and not isinstance(facts, dict):
        raise BrokenFileError(f"{paths.show(path)} has no facts in its metadata, but {str(facts)[:50]!r}.")
    return facts


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        BrokenFileError: If it is not a whole safetensors file, or a number in it is not finite.
    """
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise BrokenFileError(f"{paths.show(path)} is not a whole safetensors file ({error}).") from error
    if bad := not_finite(found):
        raise BrokenFileError(
            f"{paths.show(path)} has numbers that are not finite, in {len(bad)} of {len(found)} tensors ({bad[0]})."
        )
    return found


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with NaN or infinite values."""
    return [name for name, one in tensors.items() if one.is_floating_point() and not one.isfinite().all()]
