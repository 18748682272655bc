"""Answers as the values of other libraries: detections of ``supervision``, and records as COCO has them.

``classed`` says which class each object of a result has there; ``detections`` and ``coco`` build the values. What they are called with is a
``Result``, which ``Result.to_supervision`` and ``Result.to_coco`` hand over. Other libraries are imported where they are used.
"""
