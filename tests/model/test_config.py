from __future__ import annotations

import pytest

from florence2.model import TextConfig, VisionConfig


def test_base_makes_577_tokens_of_768_pixels():
    assert VisionConfig().grid_size(768, 768) == (24, 24)
    assert VisionConfig().num_image_tokens(768, 768) == 577


def test_stages_of_different_number_are_refused_by_name():
    with pytest.raises(ValueError, match="num_groups has 3 entries, expected one per stage: 4"):
        VisionConfig(num_groups=(4, 8, 16))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="768 is not a multiple of its 10"):
        TextConfig(decoder_attention_heads=10)
