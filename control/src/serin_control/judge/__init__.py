"""The judge: compares two lanes on what was observed of them, and says promote, abort or wait.

Pure: what it knows came through :class:`serin_control.judge.judge.Judge`; it asks nobody and has no clock.
"""
