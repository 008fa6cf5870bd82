"""What a gateway remembers and reports of finished requests: figures for rollouts, a record for whoever asks why.

No text and no ids leave it, except to workers of the request's own model that score them (`shadow`).
"""
