"""The loss of answers is cross entropy, with targets that may be spread over neighbouring bins."""

from __future__ import annotations

import math

import torch

from florence2.training.collation import IGNORED
from florence2.training.losses import answer_losses

FIRST_LOCATION = 40
VOCABULARY = 1050


def test_without_spread_the_loss_is_cross_entropy():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, VOCABULARY)
    labels = torch.tensor([[0, 5, FIRST_LOCATION, FIRST_LOCATION + 999, 2], [0, 6, 2, IGNORED, IGNORED]])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(answer_losses(logits, labels, FIRST_LOCATION, 0.0).flatten(), expected)


def test_with_spread_a_near_miss_costs_less_than_a_far_one():
    labels = torch.tensor([[FIRST_LOCATION + 500]])
    losses = {}
    for bin_ in (500, 503, 600):
        logits = torch.zeros(1, 1, VOCABULARY)
        logits[0, 0, FIRST_LOCATION + bin_] = 10.0
        losses[bin_] = float(answer_losses(logits, labels, FIRST_LOCATION, 4.0))
    assert losses[500] < losses[503] < losses[600]


def test_spread_stays_inside_the_bins_and_off_words():
    logits = torch.zeros(1, 2, VOCABULARY)
    logits[0, :, :FIRST_LOCATION] = -1e4
    logits[0, :, FIRST_LOCATION + 1000 :] = -1e4
    losses = answer_losses(logits, torch.tensor([[FIRST_LOCATION, FIRST_LOCATION + 999]]), FIRST_LOCATION, 6.0)
    torch.testing.assert_close(losses, torch.full((1, 2), math.log(1000)))
