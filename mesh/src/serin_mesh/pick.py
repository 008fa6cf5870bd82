"""The cookie that pins a call to one endpoint of a cluster; a pin to an endpoint that is gone is ignored.

Knows nothing about why an endpoint was picked.
"""

import base64

COOKIE_NAME = "serin-pick"


def pick_cookie(cluster: str, endpoint: str) -> tuple[str, str]:
    """Metadata that pins a call.

    Args:
        cluster: the cluster's name in xDS.
        endpoint: ``ip:port`` as the control plane publishes it.
    """
    value = base64.b64encode(f"{endpoint};{cluster}".encode()).decode()
    return "cookie", f"{COOKIE_NAME}={value}"
