"""Recorded answers of the API: `samples/<case>/<status>.json`."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "samples"
