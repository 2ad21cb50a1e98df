"""The container's HEALTHCHECK: exits with status 0 if the node is alive, else with 1.

It requests /healthz if the HTTP port is on and has no TLS, else it only connects to the native
port. A node without both, which lives from a queue, cannot be asked and counts as alive. The ports
come from the node's variables, not from its flags. It imports little because it runs every half
minute on a small board:

    python -I -S healthcheck.py
"""

import os
import socket
import sys

SECONDS = 4


def main() -> str:
    """Return the fault, or an empty string."""
    text = os.environ.get("NODE_WHISPER_HTTP_PORT") or "off"
    http = {"off": 0, "auto": 8080}[text] if text.isalpha() else int(text)
    if os.environ.get("NODE_WHISPER_TLS_CERT"):
        http = 0
    native = os.environ.get("NODE_WHISPER_PORT") or "56789"
    if not http and native == "off":
        return ""
    port = http or int(native)
    host = os.environ.get("NODE_WHISPER_HOST") or "127.0.0.1"
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    try:
        with socket.create_connection((host, port), SECONDS) as connection:
            if not http:
                return ""
            head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            connection.sendall(head)
            answer = connection.recv(64)
    except OSError as error:
        return f"port {port}: {error}"
    return "" if answer.split()[1:2] == [b"200"] else f"port {port} answered {answer[:40]!r}"


if __name__ == "__main__":
    fault = main()
    if fault:
        print(fault)
    sys.exit(1 if fault else 0)
