"""Roboflow's ``/infer/lmm`` and its management routes."""
