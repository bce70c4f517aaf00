"""Real servers to measure against, each on loopback with its data in a folder of the benchmark's own.

The servers are those of the tests: the example `servers` of the crate manifold-tests starts one and says where it is.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))


# Nothing of the person's own network set-up may come between: proxies, and certificates that old clients stumble over.
ENVIRONMENT = {key: value for key, value in os.environ.items()
               if not key.lower().endswith("_proxy") and key not in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")}


class Server:
    """One running source. `uri`, `settings` and `secrets` are for manifold, `rclone` is a remote for rclone."""

    def __init__(self, kind, said):
        self.kind = kind
        self.uri = said["uri"]
        self.settings = said["settings"]
        self.secrets = said["secrets"]
        self.root = Path(said["root"]) if said.get("root") else None

    def rclone_remote(self):
        """Gives rclone's name of the source's root, as a connection string, and the environment that goes with it."""
        if self.kind == "s3":
            bucket = self.uri.removeprefix("s3://")
            return f":s3,provider=Other,endpoint='{self.settings['endpoint']}',region=us-east-1:{bucket}", {
                "RCLONE_S3_ACCESS_KEY_ID": self.settings["access_key_id"],
                "RCLONE_S3_SECRET_ACCESS_KEY": self.secrets["secret_access_key"],
            }
        if self.kind == "smb":
            host, share = self.uri.removeprefix("smb://").split("/", 1)
            user, host = host.split("@") if "@" in host else (self.settings.get("user", ""), host)
            host, port = host.split(":")
            obscured = subprocess.run(["rclone", "obscure", self.secrets["password"]], check=True, capture_output=True,
                                      text=True).stdout.strip()
            return f":smb,host={host},port={port},user={user}:{share}", {"RCLONE_SMB_PASS": obscured}
        return f":webdav,url='{self.uri.replace('webdav://', 'http://')}',vendor=other:", {}

    def put(self, name, path):
        """Puts a file into the source without going through manifold."""
        if self.root is not None:
            shutil.copyfile(path, self.root / name)
            return
        remote, environment = self.rclone_remote()
        subprocess.run(["rclone", "copyto", str(path), f"{remote}/{name}", "--s3-no-check-bucket", "--s3-upload-concurrency", "2"],
                       check=True, env={**ENVIRONMENT, **environment})

    def bare_download(self, name):
        """Downloads a file with a bare client and drops the bytes: `smbclient get`, or eight parallel ranged GETs."""
        if self.kind == "smb":
            self._smbclient(f"get {name} /dev/null")
            return
        remote, environment = self.rclone_remote()
        url = subprocess.run(["rclone", "link", f"{remote}/{name}"], check=True, capture_output=True, text=True,
                             env={**ENVIRONMENT, **environment}).stdout.strip()
        parallel_ranges(url, part=4 << 20, threads=8)


    def bare_upload(self, path, name):
        """Uploads a file with a bare client: `smbclient put`, or `rclone copyto`, multipart, four parts at a time."""
        if self.kind == "smb":
            self._smbclient(f"put {path} {name}")
            return
        remote, environment = self.rclone_remote()
        subprocess.run(["rclone", "copyto", str(path), f"{remote}/{name}", "--s3-no-check-bucket", "--s3-upload-concurrency", "4",
                        "--s3-disable-checksum"], check=True, env={**ENVIRONMENT, **environment})

    def _smbclient(self, command):
        host, share = self.uri.removeprefix("smb://").split("/", 1)
        user, host = host.split("@") if "@" in host else (self.settings.get("user", ""), host)
        host, port = host.split(":")
        with open("/dev/null", "w") as null:
            subprocess.run(["smbclient", f"//{host}/{share}", "-p", port, "-U", user, "-c", command],
                           check=True, env={**ENVIRONMENT, "PASSWD": self.secrets["password"]}, stdout=null, stderr=null)


def parallel_ranges(url, part, threads):
    """Reads all of a URL by ranged GETs of `part` bytes, `threads` at a time, each thread on one connection (curl)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Range": "bytes=0-0"})) as answer:
        size = int(answer.headers["Content-Range"].split("/")[1])
    starts = list(range(0, size, part))

    def fetch(mine):
        # One curl, one connection: the ranges one after the other.
        config = "".join(
            f'url = "{url}"\nrange = {start}-{min(start + part, size) - 1}\noutput = /dev/null\nnext\n' for start in mine)
        subprocess.run(["curl", "--silent", "--fail", "--config", "-"], input=config.removesuffix("next\n").encode(), check=True, env=ENVIRONMENT)

    workers = [threading.Thread(target=fetch, args=(starts[i::threads],)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


@contextmanager
def server(kind, work):
    """Starts a server: "s3" (SeaweedFS), "smb" (Samba), or "http10ms" (WebDAV, 10 ms before each answer)."""
    if kind == "http10ms":
        folder = Path(work) / "slow"
        folder.mkdir(exist_ok=True)
        command = [sys.executable, str(Path(__file__).with_name("slow_webdav.py")), str(folder), "10"]
    else:
        command = [str(TARGET / "release" / "examples" / "servers"), kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"bench: {' '.join(command)} did not start")
        yield Server(kind, json.loads(line))
    finally:
        process.stdin.close()  # the server's sign to stop
        process.wait()
