"""What the names of precisions mean on processors with and without instructions for them."""

from __future__ import annotations

import pytest
import torch

from florence2.engine import precision
from florence2.engine.precision import choose_packing, choose_precision

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["with bf16", "without bf16"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "has_bf16_products", lambda: request.param)
    monkeypatch.setattr(precision, "can_pack", lambda dtype: request.param or dtype == torch.float32)
    return request.param


@pytest.mark.parametrize("name", ["fp32", "bf16", "int8"])
def test_a_precision_keeps_its_name(has_bf16: bool, name: str) -> None:
    chosen = choose_precision(name, CPU)
    assert chosen.name == name
    assert chosen.is_exact == (name == "fp32")


def test_bf16_is_never_emulated(has_bf16: bool) -> None:
    chosen = choose_precision("bf16", CPU)
    assert chosen.decoder_weights == torch.bfloat16
    assert (chosen.tower, chosen.text) == ((torch.bfloat16,) * 2 if has_bf16 else (torch.float32,) * 2)
    assert choose_packing(chosen, CPU) == chosen


def test_auto_is_bf16_where_there_are_instructions_for_it(has_bf16: bool) -> None:
    assert choose_precision("auto", CPU).name == ("bf16" if has_bf16 else "fp32")
