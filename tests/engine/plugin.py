"""What the engine starts in the place of a provider: it has the tests' own process serve one, and tells where.

Run without site-packages, ``python -I -S plugin.py gcp``, it is there in a fiftieth of a second.
"""

import json
import os
import signal
import socket
import sys


def main(package: str) -> None:
    # As the engine ends it: without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as text:
        connection.connect(os.environ["STANDIN_SOCKET"])
        json.dump({"package": package, "environ": dict(os.environ)}, text)
        text.write("\n")
        text.flush()
        print(text.readline().strip(), flush=True)
        text.read()


if __name__ == "__main__":
    main(sys.argv[1])
