"""Guards: what is looked for in what callers and models write, and what happens then. No security boundary.

`detector` is the interface, `screen` how text passes through, `policy` who has which; `desk` is what requests meet.
"""
