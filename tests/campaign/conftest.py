"""The campaign's modules import each other by name, and `photographs` from the folder above."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]
