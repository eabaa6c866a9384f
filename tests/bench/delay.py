"""A TCP proxy that delays the answers of one server: `python -m tests.bench.delay
TARGET_PORT DELAY_MS PORT`.

It uses threads and sleeps, because the timers of an event loop are accurate only to
milliseconds.
"""

import socket
import sys
import threading
import time
from queue import SimpleQueue

Chunks = SimpleQueue[tuple[float, bytes]]


def main(target_port: int, delay_s: float, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", target_port))
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            chunks: Chunks = SimpleQueue()
            for job, *args in (
                (_forward, client, server),
                (_receive, server, chunks),
                (_later, chunks, client, delay_s),
            ):
                threading.Thread(target=job, args=args, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket) -> None:
    while chunk := source.recv(65536):
        target.sendall(chunk)
    target.shutdown(socket.SHUT_WR)


def _receive(source: socket.socket, chunks: Chunks) -> None:
    while chunk := source.recv(65536):
        chunks.put((time.monotonic(), chunk))
    chunks.put((time.monotonic(), b""))


def _later(chunks: Chunks, target: socket.socket, delay_s: float) -> None:
    while True:
        arrived_s, chunk = chunks.get()
        time.sleep(max(0.0, arrived_s + delay_s - time.monotonic()))
        if not chunk:
            target.close()
            return
        target.sendall(chunk)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) / 1000, int(sys.argv[3]))
