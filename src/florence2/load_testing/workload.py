"""What is sent, and when: a stream of planned requests that a seed decides, and the times at which they are due.

In: questions with weights, how many pictures there are, a seed. Out: ``Planned`` values, one after the other, and times in seconds from the
beginning of a run. The same seed gives the same requests, whatever the server does. Knows nothing of servers and clocks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from florence2.load_testing.options import Load, Question
from florence2.load_testing.pictures import NUM_VARIANTS, Pictures

ARRIVALS = ("poisson", "constant")
ORDERS = ("turn", "random")


@dataclass(frozen=True)
class Planned:
    """One request that is to be sent.

    Attributes:
        name: the question's, for reports.
        prompt: what is asked.
        picture: which of the pictures.
        variant: which variant of it.
    """

    name: str
    prompt: str
    picture: int
    variant: int


def planned_requests(
    questions: Sequence[Question], pictures: Pictures, *, order: str = "turn", repeat: float = 0.0, seed: int = 0
) -> Iterator[Planned]:
    """An endless stream of requests.

    Args:
        questions: what is asked, by weight.
        pictures: those that are asked about.
        order: of the pictures: ``turn`` or ``random``.
        repeat: of drawn pictures, the share of requests with one that is sent again and again, as it was drawn; the others get a variant
            that no other request has.
        seed: where all chance comes from.
    """
    chance = random.Random(f"requests {seed}")  # nosec B311 # a load that can be repeated
    names = list(questions)
    weights = [one.weight for one in names]
    num_variants = [0] * len(pictures.pictures)
    for number in count():
        question = chance.choices(names, weights)[0]
        prompt = chance.choice(question.prompts)
        picture = number % len(pictures.pictures) if order == "turn" else chance.randrange(len(pictures.pictures))
        is_repeated = chance.random() < repeat
        variant = 0
        if pictures.are_varied and not is_repeated:
            variant = 1 + num_variants[picture] % (NUM_VARIANTS - 1)
            num_variants[picture] += 1
        yield Planned(question.name, prompt, picture, variant)


def due_times(load: Load, arrivals: str, seed: int) -> Iterator[float]:
    """When each request of an open loop is due, in seconds from the beginning.

    Args:
        load: so many requests a second.
        arrivals: ``poisson`` (each at any time, without regard to the others) or ``constant`` (equally far apart).
        seed: where all chance comes from.
    """
    if arrivals == "constant":
        yield from (number / load.value for number in count())
    chance = random.Random(f"arrivals {seed} {load.value}")  # nosec B311 # a load that can be repeated
    due_s = 0.0
    while True:
        due_s += chance.expovariate(load.value)
        yield due_s
