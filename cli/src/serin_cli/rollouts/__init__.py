"""Rollouts at the command line: what is asked of control planes, and how answers are shown."""
