"""A real HTTP server on this machine that misbehaves on request."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; `server.faults` lists, for each path, what goes wrong call by call."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        start = self.range_start()
        server.requests.append((self.path, start))
        faults = server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else None
        content = server.files.get(self.path)
        if content is None or fault == "error":
            self.send_error(404 if content is None else 503)
            return
        if fault == "corrupt":
            content = bytes(255 - byte for byte in content)
        if fault == "no ranges":
            start = 0
        if start and start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault in ("truncate", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "stall":
                server.released.wait(20)
            self.close_connection = True
            return
        self.wfile.write(body)

    def range_start(self):
        header = self.headers.get("Range")
        return int(header.removeprefix("bytes=").removesuffix("-")) if header else 0

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = {}, {}, []
        self.released = threading.Event()  # set when the test is over: a stalled answer may end
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.released.set()
        self.shutdown()
        self.server_close()
