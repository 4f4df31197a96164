"""Measurements of dd_sa_tokens. Run them with `python -m benchmarks`; `--quick` only shows that they run."""
