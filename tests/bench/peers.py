"""The candidates: manifold, the native folder, bindfs, mergerfs and rclone, each mounted for as long as it is measured."""

import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measure import drop_pages, run
from sources import ENVIRONMENT, TARGET

MANIFOLD = os.environ.get("MANIFOLD", str(TARGET / "release" / "manifold"))
DEADLINE_S = 120


def _await(condition, what, seconds=DEADLINE_S, every=0.01):
    """Waits until a condition holds; gives up with the words of what did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"bench: {what} did not happen within {seconds} s")
        time.sleep(every)


def _unmount(at, process):
    # Lazily, and with a signal: a peer that takes its mount for busy would be waited for without end.
    subprocess.run(["fusermount3", "-u", "-z", str(at)], check=False)
    process.terminate()
    process.wait()


def _library(work):
    return work / "library"


def _command(work, *arguments, **options):
    return subprocess.run([MANIFOLD, "--library", str(_library(work)), *arguments], check=True, stdin=subprocess.DEVNULL,
                          **options)


def status(work):
    """Gives what `manifold status --json` says of the running daemon."""
    return json.loads(_command(work, "status", "--json", capture_output=True, text=True).stdout)


def _source(work):
    (source,) = status(work)["sources"]
    return source


def wait_for_scan(work):
    """Waits until every source has been scanned; a scan that missed a directory is no basis for a figure."""
    def done():
        scans = [source["scan"] for source in status(work)["sources"]]
        return all(scan and scan["finished"] for scan in scans)
    # Seldom: to ask starts a program, and a hundred of them a second would take a fifth of two processors from the scan.
    _await(done, "the end of the scan", every=0.5)
    if any(source["scan"]["failed"] for source in status(work)["sources"]):
        sys.exit("bench: some directories could not be listed")


def fetched(work):
    """Gives the bytes and the blocks that the one source has been asked for since the daemon started."""
    counted = _source(work)["fetched"]
    return counted["bytes"], counted["blocks"]


def fill_disk_cache(work, path, size):
    """Reads a file until all of it is in the disk cache: where the disk is much slower than the source, blocks are left out."""
    for _ in range(10):
        drop_pages(path)
        run(["cat", str(path)], stdout=subprocess.DEVNULL)
        try:
            _await(lambda: status(work)["cache"]["disk_bytes"] >= size, "the disk cache having it all", seconds=5)
            return
        except TimeoutError:
            continue
    sys.exit("bench: the disk cache did not take the whole object in ten readings")


def resident_bytes(work):
    """Gives the daemon's resident memory, its program's pages included."""
    pid = status(work)["daemon"]["pid"]
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmRSS")


def index_seconds(work, folder):
    """Runs `manifold up` on a fresh library over a folder; gives the seconds from the start of the command to the end
    of the scan, and those of the scan alone. These are the times that the catalog keeps, so asking late costs nothing."""
    begun = time.time()
    with manifold_over(work, [folder], fresh=True):
        wait_for_scan(work)
        scan = _source(work)["scan"]
    started, finished = (datetime.datetime.fromisoformat(scan[key]).timestamp() for key in ("started", "finished"))
    return finished - begun, finished - started


@contextmanager
def manifold_over(work, sources_, fresh, settings=(), environment=None, set_=()):
    """Runs `manifold up` over sources; gives the mount point."""
    library, at = _library(work), work / "manifold"
    if fresh and library.exists():
        shutil.rmtree(library)
    library.mkdir(exist_ok=True)
    at.mkdir(exist_ok=True)
    if settings:
        tables = {}
        for line in settings:
            key, value = line.split(" = ", 1)
            table, name = key.split(".")
            tables.setdefault(table, []).append(f"{name} = {value}")
        (library / "settings.toml").write_text("".join(f"[{t}]\n" + "\n".join(lines) + "\n" for t, lines in tables.items()))
    arguments = [x for pair in set_ for x in ("--set", pair)]
    log = open(work / "manifold.log", "w")
    process = subprocess.Popen([MANIFOLD, "--library", str(library), "up", *map(str, sources_), "--at", str(at), *arguments],
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**ENVIRONMENT, **(environment or {})})
    try:
        _await(lambda: process.poll() is not None or os.path.ismount(at), "the mount of manifold")
        if process.poll() is not None:
            sys.exit("bench: manifold up ended: " + (work / "manifold.log").read_text())
        yield at
    finally:
        process.terminate()
        process.wait()
        log.close()


def wait_for_uploads(work):
    """Waits until nothing that was written is missing at its source; an upload that was refused ends the benchmark."""
    def done():
        uploads = status(work)["uploads"]
        if uploads["refused"]:
            sys.exit("bench: an upload was refused")
        return uploads["waiting"] == 0
    _await(done, "the end of the uploads", seconds=1800, every=0.2)


def wait_for_rclone(work):
    """Waits until rclone's mount has uploaded all that was written to it."""
    address = (work / "rclone.address").read_text()
    # A file that was closed a moment ago may not be counted yet.
    idle = 0
    def done():
        nonlocal idle
        said = run(["rclone", "rc", "--url", f"http://{address}/", "vfs/stats"], capture_output=True, text=True,
                   env=ENVIRONMENT).stdout
        cache = json.loads(said)["diskCache"]
        idle = idle + 1 if cache["uploadsInProgress"] == 0 and cache["uploadsQueued"] == 0 else 0
        return idle == 3
    _await(done, "the end of rclone's uploads", seconds=1800, every=0.2)


@contextmanager
def manifold(work, server, fresh, settings=(), set_=()):
    """Runs `manifold up` over one server; gives the folder of its source in the mount."""
    environment = {f"BENCH_{key.upper()}": value for key, value in server.secrets.items()}
    set_ = [*set_, *(f"{key}={value}" for key, value in server.settings.items())]
    set_ += [f"{key}=env:BENCH_{key.upper()}" for key in server.secrets]
    with manifold_over(work, [server.uri], fresh, settings, environment, set_) as at:
        (source,) = at.iterdir()
        yield source


@contextmanager
def rclone(work, server_or_folder, cache, writes=False):
    """Mounts with `rclone mount`, cache "off" or "full"; gives the mount point. With `writes` it takes them, uploads at once,
    and tells on loopback of what is under way."""
    at = work / f"rclone-{cache}"
    at.mkdir(exist_ok=True)
    cache_folder = work / "rclone-cache"
    shutil.rmtree(cache_folder, ignore_errors=True)
    if isinstance(server_or_folder, Path):
        remote, environment = str(server_or_folder), {}
    else:
        remote, environment = server_or_folder.rclone_remote()
    how = ["--read-only"]
    if writes:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        (work / "rclone.address").write_text(address)
        how = ["--vfs-write-back", "1ms", "--s3-no-check-bucket", "--rc", "--rc-no-auth", "--rc-addr", address]
    process = subprocess.Popen(["rclone", "mount", remote, str(at), "--vfs-cache-mode", cache, "--cache-dir", str(cache_folder),
                                *how], env={**ENVIRONMENT, **environment}, stdin=subprocess.DEVNULL)
    try:
        _await(lambda: os.path.ismount(at), "the mount of rclone")
        yield at
    finally:
        _unmount(at, process)


@contextmanager
def _foreground(command, at):
    at.mkdir(exist_ok=True)
    process = subprocess.Popen([*command, str(at)], stdin=subprocess.DEVNULL)
    try:
        _await(lambda: os.path.ismount(at), f"the mount of {command[0]}")
        yield at
    finally:
        _unmount(at, process)


@contextmanager
def all_over_folder(work, folder):
    """Mounts one local folder by every candidate at once; gives candidate -> folder."""
    with ExitStack() as stack:
        at = stack.enter_context(manifold_over(work, [folder], fresh=True))
        wait_for_scan(work)
        yield {
            "native": folder,
            "manifold": at / folder.name,
            "bindfs": stack.enter_context(_foreground(["bindfs", "-f", str(folder)], work / "bindfs")),
            "mergerfs": stack.enter_context(_foreground(["mergerfs", "-f", str(folder)], work / "mergerfs")),
            "rclone off": stack.enter_context(rclone(work, folder, "off")),
            "rclone full": stack.enter_context(rclone(work, folder, "full")),
        }
