"""What processes of a mesh are called that it has by name; added versions and workers are named where they are planned.

Knows nothing about what they are.
"""

CONTROL = "control"
GATEWAY = "gateway"
CACHE = "cache"
EDGE = "edge"
STATE_STORE = "state-redis"
CACHE_STORE = "cache-redis"
