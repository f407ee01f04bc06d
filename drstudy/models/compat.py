"""Make ``import torchvision`` work beside a CPU build of torch.

The Linux wheel of torchvision on PyPI is compiled against CUDA. Beside a CPU build of torch its compiled operators
cannot load, and importing it then fails because two detection operators, which this study never calls, are unknown.
Declaring their schemas lets the import pass; networks and transforms are pure torch. Where the operators load, nothing
is touched. Import this module before torchvision or grad-cam.
"""

from __future__ import annotations

import importlib
import sys
import types

import torch

_SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
}
_library: torch.library.Library | None = None


def _import() -> types.ModuleType:
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS.values():
            _library.define(schema)
        return importlib.import_module("torchvision")


torchvision = _import()
importlib.import_module("torchvision.transforms.v2")
