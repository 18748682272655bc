"""The recipe of ``florence-2-demo``: curriculum, batches and tokenizer."""
