"""Measurements of dd_sa_tokens. Run them with `python -m benchmarks`; README.md explains each part."""
