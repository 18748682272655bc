"""``florence2 label``: ``command`` parses the options, ``words`` makes of them what is asked, ``report`` is its output."""
