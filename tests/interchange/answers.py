"""An answer of each form, as ``Result.to_dict`` and servers give it, about a picture of 100 x 80 pixels."""

from __future__ import annotations

from typing import Any

SIZE = (100, 80)
BOXES = [[10, 20, 40, 60], [50, 5, 90, 35], [12, 22, 38, 58]]
LABELS = ["car", "traffic light", "car"]
SCORES = [0.75, 0.5, 0.25]
QUADS = [[10, 10, 40, 12, 40, 22, 10, 20], [50, 50, 90, 50, 90, 60, 50, 60]]
POLYGONS = [[[10, 10, 40, 10, 40, 40, 10, 40], [60, 60, 80, 60, 80, 70]], [[50, 5, 90, 5, 70, 35]]]

LOCATED: dict[str, dict[str, Any]] = {
    "<OD>": {"bboxes": BOXES, "labels": LABELS},
    "<DENSE_REGION_CAPTION>": {"bboxes": BOXES, "labels": ["a red car", "a light", "a red car"]},
    "<CAPTION_TO_PHRASE_GROUNDING>": {"bboxes": BOXES, "labels": LABELS},
    "<REGION_PROPOSAL>": {"bboxes": BOXES, "labels": ["", "", ""]},
    "<OCR_WITH_REGION>": {"quad_boxes": QUADS, "labels": ["STOP", "고양이"]},
    "<REFERRING_EXPRESSION_SEGMENTATION>": {"polygons": POLYGONS, "labels": ["", ""]},
    "<REGION_TO_SEGMENTATION>": {"polygons": POLYGONS, "labels": ["", ""]},
    "<OPEN_VOCABULARY_DETECTION>": {"bboxes": BOXES, "bboxes_labels": LABELS, "polygons": [], "polygons_labels": []},
}
OPEN_POLYGONS = {
    "<OPEN_VOCABULARY_DETECTION>": {"bboxes": [], "bboxes_labels": [], "polygons": POLYGONS, "polygons_labels": ["car", "cat"]},
}
REGIONS = {
    "<REGION_TO_CATEGORY>": "white circle<loc_100><loc_250><loc_400><loc_750>",
    "<REGION_TO_DESCRIPTION>": "a white circle on green<loc_100><loc_250><loc_400><loc_750>",
}
