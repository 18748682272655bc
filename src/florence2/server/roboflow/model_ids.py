"""The ids by which Roboflow's platform knows models."""

FOREIGN_IDS = {
    "florence-pretrains/1": "florence-2-base",
    "florence-pretrains/3": "florence-2-base",
    "florence-pretrains/2": "florence-2-large",
    "florence-pretrains/4": "florence-2-large",
}
"""Ids of Roboflow's platform, before and after November 2025, and the aliases that they mean."""
