"""Prints the JSON Schema of `serin.yaml`."""

import json
import sys

from serin_control.config.schema import json_schema

sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
