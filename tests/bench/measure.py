"""What is measured, with programs that applications resemble: fio for data, ls, find and du for metadata."""

import json
import os
import subprocess
import time


def run(command, **options):
    """Runs a command; its failure ends the benchmark with its own words."""
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **options)


def seconds(function, *arguments, **options):
    """Gives the wall-clock seconds that a call takes."""
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def _fio(path, *options):
    done = run(["fio", "--name=x", f"--filename={path}", "--readonly", "--ioengine=psync", "--output-format=json", *options],
               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    text = done.stdout.decode()
    return json.loads(text[text.index("{"):])["jobs"][0]["read"]


def fio_sequential(path, cold, warm_up=False):
    """Reads a file once from front to back in 1 MiB requests; MB/s. `cold` drops its pages from the kernel first."""
    if warm_up:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    if cold:
        drop_pages(path)
    return _fio(path, "--rw=read", "--bs=1M", "--invalidate=0")["bw_bytes"] / 1e6


def fio_random(path):
    """Reads 4 KiB at random places for two seconds out of warm caches; reads per second."""
    return _fio(path, "--rw=randread", "--bs=4k", "--invalidate=0", "--runtime=2", "--time_based", "--norandommap",
                "--randrepeat=1")["iops"]


def drop_pages(path):
    """Drops one file's clean pages from the kernel's cache."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def drop_kernel_caches():
    """Drops the kernel's entries, attributes and pages, of every file system."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("3")


def listing_seconds(command, root):
    """Times a listing command over `root` with all of the kernel's caches dropped first."""
    drop_kernel_caches()
    return seconds(run, [*command, str(root)], stdout=subprocess.DEVNULL)
