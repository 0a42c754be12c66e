"""An emulator of Google Cloud Storage that keeps preconditions, as a process: `python tests/emulator.py PORT BUCKET`.

gcp-storage-emulator ignores `ifGenerationMatch`, so that any lock would be granted. Here it answers 412.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator

REFUSED = json.dumps({"error": {"code": 412, "message": "Precondition Failed"}}).encode()


def serve(port: int, bucket: str) -> None:
    """Serves an empty bucket until the process ends."""
    from gcp_storage_emulator import server, storage
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import buckets

    class Handler(server.RequestHandler):
        turn = threading.Lock()

        def do_POST(self) -> None:
            if "/moveTo/" in self.path:  # gcsfs copies and deletes instead; the emulator's 501 would be tried again
                self.send_error(400)
                return
            with self.turn:
                query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.rfile = io.BytesIO(body)
                wanted = query.get("ifGenerationMatch", [""])[0]
                if not wanted or wanted == self.generation(query, body):
                    super().do_POST()
                    return
                self.send_response(412)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(REFUSED)))
                self.end_headers()
                self.wfile.write(REFUSED)

        def generation(self, query: dict[str, list[str]], body: bytes) -> str:
            bucket = self.path.partition("/b/")[2].split("/")[0]
            name = query.get("name", [""])[0]
            if not name:  # a multipart upload: JSON comes first
                name = json.JSONDecoder().raw_decode(body[body.find(b"{") :].decode("latin1"))[0]["name"]
            with contextlib.suppress(NotFound):
                return str(self.storage.get_file_obj(bucket, name)["generation"])
            return "0"

    objects = storage.Storage(use_memory_fs=True)
    buckets.create_bucket(bucket, objects)
    http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, objects)).serve_forever()


@contextlib.contextmanager
def emulated(bucket: str) -> Iterator[dict[str, str]]:
    """Starts the emulator; gives the environment variables that make all libraries use it."""
    with free_port() as port, served([sys.executable, str(pathlib.Path(__file__)), str(port), bucket], port):
        address = f"http://127.0.0.1:{port}"
        yield {
            "STORAGE_EMULATOR_HOST": address,  # gcsfs, google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "NO_GCE_CHECK": "true",  # libraries look for credentials of a machine in Google's cloud otherwise
        }


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    yield port


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[None]:
    """Runs a server until the context ends; it has to listen within 60 seconds."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server didn't start"
                time.sleep(0.05)
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
