#!/bin/sh
# Says under which address others reach this container, unless somebody said so already, then becomes the command.
set -eu
if [ "${SERIN_HOST:-}" = 0.0.0.0 ] && [ -z "${SERIN_ADVERTISE_HOST:-}" ]; then
  SERIN_ADVERTISE_HOST=$(hostname -i | cut -d ' ' -f 1)
  export SERIN_ADVERTISE_HOST
fi
exec "$@"
