#!/usr/bin/env bash
# Write the Python stubs and their types from the proto files. Usage: generate.sh [OUT]   (default: src)
set -euo pipefail
cd "$(dirname "$0")"
bin=${SERIN_BIN:-../.venv/bin}
bin=$(cd "$bin" && pwd)
out=${1:-src}
rm -rf "$out/serin" "$out/xds"
mkdir -p "$out"
files=$(find serin xds -name '*.proto' | LC_ALL=C sort)
# shellcheck disable=SC2086
PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc -I . \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" $files 2>&1 | grep -v '^Writing' || true
# Files without services get an empty gRPC module; nobody imports those.
find "$out/serin" "$out/xds" -name '*_pb2_grpc.py' | while read -r stub; do
  grep -q '^class .*Stub' "$stub" || rm "$stub" "${stub}i"
done
touch "$out/serin/py.typed" "$out/xds/py.typed"
