"""Where answers are kept: the cache Redis, and its twin in memory."""
