"""Cascades: a small model answers first, and where a declared rule holds a larger one answers instead.

`cascade.py` is what is declared, `prompt_rules.py` what decides before the first model is asked, `answer_rules.py` what
judges its answer, `held.py` where that answer waits meanwhile. Knows nothing about models, lanes or requests.
"""
