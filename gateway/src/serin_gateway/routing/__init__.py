"""From the name that a caller asks for to the models that may answer, and the way from one to the next.

`names.py` is what names mean to whom, `journey.py` what becomes of one request on its way. Knows nothing about doors.
"""
