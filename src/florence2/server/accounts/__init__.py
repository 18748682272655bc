"""Who may use the server, how much, and what they have used.

Keys with roles and limits, kept by a database; the journal of finished requests, and their sums. Knows no routes and no models.
"""
