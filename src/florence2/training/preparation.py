"""Which records a model can be trained on.

In: records. Out: those that the model has room for. Knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from florence2.datasets.record import DataSet, Record, sift
from florence2.datasets.round_trip import check_survival
from florence2.tasks.tokenizer import Tokenizer
from florence2.weights.checkpoint import Checkpoint


def with_room(records: Sequence[Record], checkpoint: Checkpoint, tokenizer: Tokenizer, name: str) -> DataSet:
    """The records that a model has room for and whose answers its tokens can say, and what is wrong with the others.

    Answers of rehearsed records are written in the model's own tokens already.

    Args:
        records: to choose from.
        checkpoint: the model's.
        tokenizer: the model's.
        name: what the records are called in messages.
    """
    text, image = checkpoint.config.text, checkpoint.image
    room = text.max_position_embeddings
    num_image_tokens = checkpoint.config.vision.num_image_tokens(image.height, image.width)

    def fault(record: Record) -> str | None:
        prompt, answer = (len(tokenizer.encode(words)) for words in (record.question.sentence, record.answers[0]))
        if prompt + num_image_tokens > room:
            return f"the prompt has {prompt} tokens; there is room for {room - num_image_tokens}"
        if answer > room:
            return f"the answer has {answer} tokens; there is room for {room}"
        return None if record.is_rehearsed else check_survival(record.answers[0], record.question, tokenizer, checkpoint.banned_phrases)

    return sift(records, fault, name)
