"""A read-only WebDAV server over one flat folder that waits a given time before each answer.

Usage: slow_webdav.py FOLDER MILLISECONDS. Prints one line of JSON that says where it is, and stops when its standard
input closes. Made for measuring what latency does, so it hands files to the socket by sendfile.
"""

import json
import os
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

FOLDER = Path(sys.argv[1])
DELAY = float(sys.argv[2]) / 1000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, *arguments):
        pass

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def file(self):
        name = unquote(self.path).strip("/")
        return FOLDER / name if name else FOLDER

    def etag(self, stat):
        return f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'

    def do_PROPFIND(self):
        time.sleep(DELAY)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.file()
        if not path.exists():
            return self.answer(404, {})
        shown = [path]
        if path.is_dir() and self.headers.get("Depth") == "1":
            shown += sorted(path.iterdir())
        rows = []
        for each in shown:
            stat = each.stat()
            href = "/" + quote(str(each.relative_to(FOLDER))) if each != FOLDER else "/"
            kind = "<D:collection/>" if each.is_dir() else ""
            href += "/" if each.is_dir() and href != "/" else ""
            rows.append(
                f"<D:response><D:href>{escape(href)}</D:href><D:propstat><D:prop><D:resourcetype>{kind}</D:resourcetype>"
                f"<D:getcontentlength>{stat.st_size}</D:getcontentlength><D:getetag>{escape(self.etag(stat))}</D:getetag>"
                f"<D:getlastmodified>{formatdate(stat.st_mtime, usegmt=True)}</D:getlastmodified></D:prop>"
                f"<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>")
        body = '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">' + "".join(rows) + "</D:multistatus>"
        return self.answer(207, {"Content-Type": "application/xml"}, body.encode())

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        time.sleep(DELAY)
        path = self.file()
        if not path.is_file():
            return self.answer(404, {})
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            start, end, status = 0, stat.st_size - 1, 200
            if "Range" in self.headers:
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                start, end, status = int(first), min(int(last or end), end), 206
            self.send_response(status)
            self.send_header("Content-Length", str(end - start + 1))
            self.send_header("ETag", self.etag(stat))
            self.send_header("Last-Modified", formatdate(stat.st_mtime, usegmt=True))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end}/{stat.st_size}")
            self.end_headers()
            self.wfile.flush()
            if self.command == "GET":
                while start <= end:
                    start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start + 1)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", 0), Handler)
print(json.dumps({"uri": f"webdav://127.0.0.1:{server.server_address[1]}/", "settings": {}, "secrets": {}, "root": str(FOLDER)}), flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
