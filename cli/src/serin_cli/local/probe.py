"""What a front door of this mesh answers. Asks whether, not who: no certificate is checked."""

import http.client
import json
import ssl

ANSWER_S = 2.0


def answers(port: int, path: str, *, is_tls: bool = False) -> bool:
    """Whether ``path`` answers 200 on this machine's ``port`` within two seconds. Blocks so long."""
    connection: http.client.HTTPConnection
    if is_tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=ANSWER_S, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ready_models(port: int, key: str) -> frozenset[str]:
    """Models that a gateway on this machine's ``port`` has workers for, as a key sees them; none if it does not say.

    Blocks for two seconds at most.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
        found = json.loads(connection.getresponse().read())
        return frozenset(model["id"] for model in found["data"] if model["ready"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return frozenset()
    finally:
        connection.close()
