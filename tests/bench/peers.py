"""The candidates: manifold, the native folder, bindfs, mergerfs and rclone, each mounted for as long as it is measured."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sources import TARGET

MANIFOLD = str(TARGET / "release" / "manifold")
DEADLINE_S = 120


def _await(condition, what):
    """Waits until a condition holds; gives up with the words of what did not happen."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"bench: {what} did not happen within {DEADLINE_S} s")
        time.sleep(0.01)


def _unmount(at, process):
    subprocess.run(["fusermount3", "-u", str(at)], check=False)
    process.wait()


def _library(work):
    return work / "library"


def _command(work, *arguments, **options):
    return subprocess.run([MANIFOLD, "--library", str(_library(work)), *arguments], check=True, stdin=subprocess.DEVNULL,
                          **options)


def status(work):
    """Gives what `manifold status --json` says of the running daemon."""
    return json.loads(_command(work, "status", "--json", capture_output=True, text=True).stdout)


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
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
    try:
        _await(lambda: process.poll() is not None or os.path.ismount(at), "the mount of manifold")
        if process.poll() is not None:
            sys.exit("bench: manifold up ended: " + (work / "manifold.log").read_text())
        yield at
    finally:
        process.terminate()
        process.wait()
        log.close()


@contextmanager
def manifold(work, server, fresh, settings=()):
    """Runs `manifold up` over one server; gives the folder of its source in the mount."""
    environment = {f"BENCH_{key.upper()}": value for key, value in server.secrets.items()}
    set_ = [f"{key}={value}" for key, value in server.settings.items()]
    set_ += [f"{key}=env:BENCH_{key.upper()}" for key in server.secrets]
    with manifold_over(work, [server.uri], fresh, settings, environment, set_) as at:
        (source,) = at.iterdir()
        yield source


@contextmanager
def rclone(work, server_or_folder, cache):
    """Mounts with `rclone mount`, cache "off" or "full"; gives the mount point."""
    at = work / f"rclone-{cache}"
    at.mkdir(exist_ok=True)
    cache_folder = work / "rclone-cache"
    shutil.rmtree(cache_folder, ignore_errors=True)
    if isinstance(server_or_folder, Path):
        remote, environment = str(server_or_folder), {}
    else:
        remote, environment = server_or_folder.rclone_remote()
    process = subprocess.Popen(["rclone", "mount", remote, str(at), "--vfs-cache-mode", cache, "--cache-dir", str(cache_folder),
                                "--read-only"], env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
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
