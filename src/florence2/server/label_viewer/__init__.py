"""The page of ``florence2 view``: the labelled pictures of a run, to look through, filter and sort in a browser on the same machine.

``folder`` reads the run, ``index`` keeps what is asked about and ``selection`` answers it, ``pictures`` makes the copies that are shown,
``app`` has the routes and ``process`` the listening. The page itself is in ``assets``. Changes nothing of the run.
"""
