"""``florence2 infer``: ``command`` parses the options, ``questions`` and ``answers`` are its work, ``report`` its output."""
