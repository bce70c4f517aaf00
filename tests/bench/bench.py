#!/usr/bin/env python3
"""Compares the mount with the native file system and with its peers, in interleaved runs, and reports ratios.

Run by hand, as root, on an idle machine:

    cargo build --release -p manifold && cargo build --release -p manifold-tests --examples
    tests/bench/bench.py                 # everything; about half an hour
    tests/bench/bench.py local write-smb # some of it
    tests/bench/bench.py --markdown >> docs/benchmarks.md

Each round measures every candidate once, one after the other, so that a slow minute of the machine hits all of them;
a figure is the median over the rounds, a ratio the median of the paired ratios. Needs bindfs, mergerfs, rclone, fio
and the servers that `tests/servers/install` installs.
"""

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import peers
import sources
import writing
from measure import (fio_random, fio_sequential, listing_seconds, run, seconds)

ROWS = []


def report(name, unit, figures, base, target=None, over=None):
    """Adds the medians of `figures` (candidate -> list over rounds) and the paired ratio of manifold to `base`."""
    ours = figures["manifold"]
    theirs = figures[base]
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    met = "" if target is None else ("met" if (ratio <= target if over == "at most" else ratio >= target) else "**not met**")
    wanted = "" if target is None else f"{'≤' if over == 'at most' else '≥'} {target:g} × {base}"
    medians = ", ".join(f"{who} {statistics.median(values):,.4g}" for who, values in figures.items())
    ROWS.append((name, unit, medians, f"{ratio:.2f} × {base}", wanted, met))
    print(f"{name}: {medians} {unit}; {ratio:.2f} x {base}; {wanted} {met}", file=sys.stderr)


def report_value(name, unit, value, target, met):
    ROWS.append((name, unit, f"{value:,.4g}", "", target, "met" if met else "**not met**"))
    print(f"{name}: {value:,.4g} {unit}; {target}; {'met' if met else 'NOT MET'}", file=sys.stderr)


def make_file(path, size, seed=1):
    """Writes `size` bytes that do not compress, the same ones for the same seed."""
    rng = random.Random(seed)
    with open(path, "wb") as out:
        chunk = rng.randbytes(min(size, 4 << 20))
        for i in range(0, size, len(chunk)):
            head = i.to_bytes(8, "little")
            out.write((head + chunk[8:])[: size - i])


def make_tree(root, files, per_directory=100):
    """Makes `files` small files in nested directories."""
    root.mkdir(parents=True)
    made = 0
    directory = 0
    while made < files:
        here = root / f"part{directory % 97:02}" / f"folder{directory:06}"
        here.mkdir(parents=True)
        for i in range(min(per_directory, files - made)):
            os.close(os.open(here / f"document-{made + i:07}.txt", os.O_CREAT | os.O_WRONLY, 0o644))
        made += per_directory
        directory += 1


def bench_local(work, rounds):
    """A local file through each mount: sequential 1 MiB and random 4 KiB reads, out of a warm page cache."""
    data = work / "local"
    data.mkdir()
    make_file(data / "file.bin", 1 << 30)
    run(["cat", str(data / "file.bin")], stdout=subprocess.DEVNULL)
    with peers.all_over_folder(work, data) as roots:
        sequential, rand = {k: [] for k in roots}, {k: [] for k in roots}
        for _ in range(rounds):
            for who, root in roots.items():
                sequential[who].append(fio_sequential(root / "file.bin", cold=False, warm_up=True))
                rand[who].append(fio_random(root / "file.bin"))
    report("local file, sequential 1 MiB", "MB/s", sequential, "native", 0.90)
    report("local file, random 4 KiB", "reads/s", rand, "native", 0.90)
    shutil.rmtree(data)


def bench_server(kind, work, rounds):
    """A server: cold sequential reads, blocks in memory, whole objects in the disk cache, random reads."""
    with sources.server(kind, work) as server:
        size = 1 << 30
        make_file(work / "upload.bin", size)
        server.put("file.bin", work / "upload.bin")
        cold = {"manifold": [], "rclone": [], "bare": []}
        for _ in range(rounds):
            with peers.manifold(work, server, fresh=True) as root:
                cold["manifold"].append(fio_sequential(root / "file.bin", cold=True))
            with peers.rclone(work, server, "off") as root:
                cold["rclone"].append(fio_sequential(root / "file.bin", cold=True))
            cold["bare"].append(size / 1e6 / seconds(server.bare_download, "file.bin"))
        report(f"{kind}, cold sequential, 1 GiB", "MB/s", cold, "rclone", 1.5)
        report(f"{kind}, cold sequential, 1 GiB", "MB/s", cold, "bare", 0.8)

        warm = {"manifold": [], "rclone full": []}
        memory = {"manifold": []}
        whole = {"manifold": [], "native": []}
        whole_random = {"manifold": [], "native": []}
        with peers.manifold(work, server, fresh=True, settings=['mount.passthrough = false', 'cache.memory_bytes = "3 GiB"']) as ours, \
                peers.rclone(work, server, "full") as theirs:
            for root in (ours, theirs):
                fio_sequential(root / "file.bin", cold=True)
            for _ in range(rounds):
                warm["manifold"].append(fio_sequential(ours / "file.bin", cold=True))
                warm["rclone full"].append(fio_sequential(theirs / "file.bin", cold=True))
        report(f"{kind}, blocks in memory, kernel-cold sequential", "MB/s", warm, "rclone full", 5)
        with peers.manifold(work, server, fresh=True) as ours:
            peers.fill_disk_cache(work, ours / "file.bin", size)
            native = work / "upload.bin"
            for _ in range(rounds):
                for who, path in (("manifold", ours / "file.bin"), ("native", native)):
                    whole[who].append(fio_sequential(path, cold=False, warm_up=True))
                    whole_random[who].append(fio_random(path))
        report(f"{kind}, whole in the disk cache, sequential", "MB/s", whole, "native", 0.90)
        report(f"{kind}, whole in the disk cache, random 4 KiB", "reads/s", whole_random, "native", 0.90)

        with peers.manifold(work, server, fresh=True) as ours:
            rng = random.Random(7)
            offsets = [rng.randrange(0, size // 4096) * 4096 for _ in range(200)]
            fd = os.open(ours / "file.bin", os.O_RDONLY)
            for offset in offsets:
                os.pread(fd, 4096, offset)
            os.close(fd)
            fetched, blocks = peers.fetched(work)
        block = fetched // blocks
        touched = len({offset // block for offset in offsets})
        ratio = blocks / touched
        report_value(f"{kind}, random 4 KiB of 1 GiB: blocks of {block >> 10} KiB fetched ÷ touched", "", ratio,
                     "≤ 1.1", ratio <= 1.1)


def bench_latency(work, rounds):
    """A source that takes 10 ms for each request, read in sequence."""
    with sources.server("http10ms", work) as server:
        make_file(work / "upload.bin", 1 << 30)
        server.put("file.bin", work / "upload.bin")
        speeds = []
        theirs = []
        for _ in range(rounds):
            with peers.manifold(work, server, fresh=True) as root:
                speeds.append(fio_sequential(root / "file.bin", cold=True))
            with peers.rclone(work, server, "off") as root:
                theirs.append(fio_sequential(root / "file.bin", cold=True))
        report("10 ms a request, cold sequential", "MB/s", {"manifold": speeds, "rclone": theirs}, "rclone")
        value = statistics.median(speeds)
        report_value("10 ms a request, cold sequential", "MB/s", value, "≥ 400 MB/s", value >= 400)


def bench_listing(work, rounds):
    """`ls -lR`, `find` and `du` of 100,000 entries, cold in the kernel."""
    data = work / "tree"
    make_tree(data, 100_000)
    for command, target in ((["ls", "-lR"], 0.5), (["find"], None), (["du", "-s"], None)):
        with peers.all_over_folder(work, data) as roots:
            figures = {k: [] for k in roots}
            for _ in range(rounds):
                for who, root in roots.items():
                    figures[who].append(listing_seconds(command, root))
        report(f"{' '.join(command)} of 100,000 files, kernel-cold", "s", figures, "native", target, "at most")
    shutil.rmtree(data)


def bench_index(work, rounds):
    """Indexing 300,000 local files, against `find -printf`."""
    data = work / "tree"
    make_tree(data, 300_000)
    figures = {"manifold": [], "manifold, scan alone": [], "find -printf": [], "rclone lsf": []}
    run(["find", str(data), "-printf", "%s"], stdout=subprocess.DEVNULL)
    for _ in range(rounds):
        figures["find -printf"].append(seconds(run, ["find", str(data), "-printf", "%p %s %T@ %m\\n"], stdout=subprocess.DEVNULL))
        whole, scan = peers.index_seconds(work, data)
        figures["manifold"].append(whole)
        figures["manifold, scan alone"].append(scan)
        figures["rclone lsf"].append(seconds(run, ["rclone", "lsf", "-R", str(data)], stdout=subprocess.DEVNULL))
    report("index of 300,000 local files, warm", "s", figures, "find -printf", 1.2, "at most")
    shutil.rmtree(data)


def bench_memory(work, _rounds):
    """Resident memory of an idle daemon with a million entries."""
    data = work / "tree"
    make_tree(data, 1_000_000, 1000)
    with peers.manifold_over(work, [data], fresh=True):
        peers.wait_for_scan(work)
        resident = peers.resident_bytes(work) / 1e6
    report_value("resident memory with 1,000,000 entries, idle", "MB", resident, "≤ 150 MB", resident <= 150)
    shutil.rmtree(data)


def writing_to(kind, work, rounds):
    """Writes to a server."""
    writing.bench_large(kind, work, rounds, report, make_file)
    writing.bench_small(kind, work, rounds, report, make_file)


READING = {
    "local": bench_local,
    "s3": partial(bench_server, "s3"),
    "smb": partial(bench_server, "smb"),
    "latency": bench_latency,
    "listing": bench_listing,
    "index": bench_index,
    "memory": bench_memory,
}
WRITING = {
    "write-local": lambda work, rounds: writing.bench_local(work, rounds, report, make_file),
    "write-s3": partial(writing_to, "s3"),
    "write-smb": partial(writing_to, "smb"),
}
BENCHES = {**READING, **WRITING}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("which", nargs="*", choices=[[], *BENCHES], help="which benchmarks (all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="print a dated table for docs/benchmarks.md")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: run as root: passthrough, dropping caches and the servers need it")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="manifold-bench-") as work:
        for name in arguments.which or BENCHES:
            print(f"== {name}", file=sys.stderr)
            BENCHES[name](Path(work), arguments.rounds)
    if arguments.markdown:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        print(f"\n## {datetime.date.today()}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, {arguments.rounds} rounds\n")
        print("| what | unit | medians | ratio | target | |\n| --- | --- | --- | --- | --- | --- |")
        for row in ROWS:
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
