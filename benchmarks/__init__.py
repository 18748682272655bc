"""Measurements whose raw results are committed under ``benchmarks/results``; run one with ``python -m benchmarks.NAME``."""
