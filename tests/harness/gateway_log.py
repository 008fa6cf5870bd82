"""The gateway's canonical lines: what it says of each request once it is over. Knows where a mesh keeps its logs."""

import json
from typing import Any

from harness.eventually import eventually
from harness.running_mesh import RunningMesh


class GatewayLog:
    """Reads ``request.finished`` lines by request id, as far as they are written."""

    def __init__(self, mesh: RunningMesh) -> None:
        self._path = mesh.state / "logs" / "gateway.log"
        self._offset = 0
        self.lines: dict[str, list[dict[str, Any]]] = {}
        """Lines by request id; more than one would be a defect."""

    def read(self) -> None:
        """Take in what was written since."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        for text in complete.splitlines():
            line = json.loads(text) if text.startswith(b"{") else {}
            if line.get("event") == "request.finished":
                self.lines.setdefault(line["request_id"], []).append(line)

    async def finished(self, request_id: str) -> dict[str, Any]:
        """The line of a request, which may still be on its way."""

        async def look() -> list[dict[str, Any]]:
            self.read()
            return self.lines.get(request_id, [])

        (line,) = await eventually(look, bool, f"the line of {request_id}")
        return line
