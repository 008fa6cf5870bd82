"""How a Serin service lives: settings, logs, telemetry, errors, identity, server and channels."""
