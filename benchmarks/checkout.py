"""Imported by a benchmark that is run as a file: finds `testing`, which is in the checkout and in no wheel."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path.insert(0, str(ROOT))
