"""The help of options that name data sets."""

from __future__ import annotations

DATA = (
    "A .jsonl file, a COCO .json file, a YOLO data.yaml, a folder with train, valid and test of these, or synthetic:COUNT?seed=S "
    "(docs/fine-tune.md; to measure on, from seed 1000000 on)."
)
IMAGES = "The folder that the images' names are relative to. Default: the data set's own."
PROMPT = "What is asked about the images of data sets with boxes: od, or open-vocabulary-detection for all its classes."
OWN_TAGS = "Let prompts pass that begin with a tag of your own."
