"""Limits of keys: requests and tokens a minute, requests at once; shared by all gateways."""
