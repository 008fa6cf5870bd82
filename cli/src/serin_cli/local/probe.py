"""Whether a front door of this mesh answers. Asks whether, not who: no certificate is checked."""

import http.client
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
