"""The drawing as PNG, and the objects as COCO."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import area as area_of

from tests.playground.viewer.stage import NESTED, PATCH, WHOLE, Stage, patched

pytestmark = pytest.mark.slow


def png_of(stage: Stage) -> tuple[Image.Image, float]:
    """The drawing, and its scale."""
    data, scale = stage.run(
        """async () => {
            const blob = await viewer.toPng();
            const bytes = new Uint8Array(await blob.arrayBuffer());
            return [btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")), blob.scale];
        }"""
    )
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.format == "PNG"
    return picture.convert("RGB"), scale


def test_png_has_the_pictures_pixels_and_the_drawing(stage: Stage) -> None:
    polygon = [300, 100, 380, 100, 380, 280, 300, 280]
    hidden = {"label": "unsure", "box": [10, 200, 60, 280], "score": 0.1}
    stage.show(patched(), [{"label": "patch", "box": list(PATCH)}, {"label": "mask", "polygons": [polygon]}, hidden])
    stage.run("() => { viewer.setThreshold(0.5); viewer.zoomIn(); viewer.zoomIn(); }")
    picture, scale = png_of(stage)
    assert (picture.size, scale) == ((400, 300), 1)
    assert picture.getpixel((160, 120)) == (0, 0, 255), "the picture is as it was"
    colour = tuple(bytes.fromhex(stage.run("() => viewer.colorOf('patch')")[1:]))
    for spot in ((100, 120), (220, 120), (160, 180)):
        assert picture.getpixel(spot) == pytest.approx(colour, abs=60)
    red, green, blue = bytes.fromhex(stage.run("() => viewer.colorOf('mask')")[1:])
    tinted = [round(255 + 0.3 * (channel - 255)) for channel in (red, green, blue)]
    assert picture.getpixel((340, 200)) == pytest.approx(tinted, abs=3)
    assert picture.getpixel((35, 240)) == (255, 255, 255)
    assert picture.getpixel((10, 240)) == (255, 255, 255), "what is hidden is not drawn"


def test_coco_is_read_by_its_own_tools(stage: Stage, tmp_path: Path) -> None:
    layers = [
        {"visible": True, "objects": [*NESTED, {"label": "", "box": [5, 6, 15, 26]}, {"label": "dot", "polygons": [[1, 1, 2, 2]]}]},
        {"visible": False, "objects": [WHOLE]},
        {"visible": True, "objects": []},
    ]
    script = "layers => import('/export.js').then(({ toCoco }) => toCoco({ name: '사진 1.png', width: 400, height: 300, layers }))"
    file = tmp_path / "found.json"
    file.write_text(json.dumps(stage.run(script, layers)))
    coco: Any = COCO(str(file))
    assert coco.loadImgs(1) == [{"id": 1, "file_name": "사진 1.png", "width": 400, "height": 300}]
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert names == {1: "door", 2: "dot", 3: "house", 4: "object", 5: "ring", 6: "window"}
    house, window, door, ring, nameless, dot = coco.loadAnns(coco.getAnnIds(1))
    assert house["bbox"] == [50, 50, 300, 230]
    assert (house["area"], house["score"], house["segmentation"]) == (69000, 0.9, [])
    assert (names[window["category_id"]], window["area"]) == ("window", 10000)
    assert "score" not in door
    assert door["bbox"] == [55, 60, 65, 70]
    assert area_of(coco.annToRLE(door)) == pytest.approx(door["area"], rel=0.03)
    assert len(ring["segmentation"]) == 2
    assert area_of(coco.annToRLE(ring)) == pytest.approx(6400, rel=0.03)
    assert nameless["area"] == 200
    assert dot["segmentation"] == []
    assert [annotation["id"] for annotation in coco.loadAnns(coco.getAnnIds())] == [1, 2, 3, 4, 5, 6]
