"""What it costs to write: to a folder of this machine, and to servers, until acknowledged and until uploaded.

"Acknowledged" is what the writing program waits for. With Manifold that is durable: closing a file has synced what was
written and the row that owns it. rclone's full cache promises nothing at that moment, so that its figures are those of a
weaker promise. What the same promise costs on the disk alone, one file after the other, is measured beside it.
"""

import os
import shutil
from contextlib import contextmanager

import peers
import sources
from measure import run, seconds

GIB = 1 << 30
FILES, FILE_SIZE = 10_000, 10 << 10


def _write(source, target, sync):
    """Copies a file with `dd` in requests of 1 MiB; with `sync` the program waits for the disk before it closes."""
    run(["dd", f"if={source}", f"of={target}", "bs=1M", "status=none", *(["conv=fsync"] if sync else [])])


def _megabytes_a_second(function, *arguments):
    return GIB / 1e6 / seconds(function, *arguments)


def bench_local(work, rounds, report, make_file):
    """Writing 1 GiB into a folder of this machine, through each mount and beside it."""
    data = work / "local"
    data.mkdir()
    source = work / "source.bin"
    make_file(source, GIB)
    with peers.manifold_over(work, [data], fresh=True) as at, peers.rclone(work, data, "full", writes=True) as theirs:
        peers.wait_for_scan(work)
        roots = {"native": data, "manifold": at / data.name, "rclone full": theirs}
        for sync in (False, True):
            figures = {who: [] for who in roots}
            for _ in range(rounds):
                for who, root in roots.items():
                    run(["sync"])
                    target = root / f"{who.split()[0]}.bin"
                    figures[who].append(_megabytes_a_second(_write, source, target, sync))
                    target.unlink()
            report(f"local, sequential write of 1 GiB{', synced' if sync else ''}", "MB/s", figures, "native", 0.90)
    shutil.rmtree(data)
    source.unlink()


@contextmanager
def _ours(work, server):
    with peers.manifold(work, server, fresh=True, set_=["write=back"]) as root:
        yield root, lambda: peers.wait_for_uploads(work)


@contextmanager
def _theirs(work, server):
    with peers.rclone(work, server, "full", writes=True) as root:
        yield root, lambda: peers.wait_for_rclone(work)


def bench_large(kind, work, rounds, report, make_file):
    """1 GiB into a server: acknowledged against the disk that it is staged on, uploaded against a bare client.

    Of Manifold's time until it is uploaded a part passes before the file is closed, while it is staged and synced; "behind the
    close" is the rest. What is uploaded has been brought to the server's disk, where the server can do that on request (SMB);
    a bare client leaves that to the server, so that its figure with the disk waited for stands beside it.
    """
    source = work / "source.bin"
    make_file(source, GIB)
    acknowledged = {"manifold": [], "staging disk": []}
    uploaded = {"manifold": [], "rclone full": [], "bare": []}
    alone = {"manifold": [], "bare": [], "bare, then synced": []}
    with sources.server(kind, work) as server:
        for index in range(rounds):
            run(["sync"])
            beside = work / "beside.bin"
            acknowledged["staging disk"].append(_megabytes_a_second(_write, source, beside, True))
            beside.unlink()
            for who, candidate in (("manifold", _ours), ("rclone full", _theirs)):
                with candidate(work, server) as (root, wait):
                    run(["sync"])
                    target = root / f"{who.split()[0]}-{index}.bin"
                    until_closed = seconds(_write, source, target, True)
                    behind = seconds(wait)
                    if who == "manifold":
                        acknowledged[who].append(GIB / 1e6 / until_closed)
                        alone[who].append(GIB / 1e6 / behind)
                    uploaded[who].append(GIB / 1e6 / (until_closed + behind))
            run(["sync"])
            until_put = seconds(server.bare_upload, source, f"bare-{index}.bin")
            until_synced = until_put + seconds(run, ["sync"])
            uploaded["bare"].append(GIB / 1e6 / until_put)
            alone["bare"].append(GIB / 1e6 / until_put)
            alone["bare, then synced"].append(GIB / 1e6 / until_synced)
    report(f"{kind}, write of 1 GiB until acknowledged", "MB/s", acknowledged, "staging disk", 0.8)
    report(f"{kind}, write of 1 GiB until uploaded", "MB/s", uploaded, "bare", 0.9)
    report(f"{kind}, write of 1 GiB until uploaded", "MB/s", uploaded, "rclone full")
    report(f"{kind}, upload of 1 GiB behind the close", "MB/s", alone, "bare, then synced")
    source.unlink()


def _copy_synced(tree, target):
    """Copies a tree, one file after the other, and waits for the disk before it closes each."""
    for source in sorted(tree.rglob("*")):
        copy = target / source.relative_to(tree)
        if source.is_dir():
            copy.mkdir(parents=True)
            continue
        with open(copy, "xb", buffering=0) as file:
            file.write(source.read_bytes())
            os.fdatasync(file)


def bench_small(kind, work, rounds, report, make_file):
    """10,000 files of 10 KiB by `cp -r`, until `cp` has ended and until the server has them."""
    tree = work / "small"
    tree.mkdir()
    for index in range(FILES):
        folder = tree / f"folder{index // 100:03}"
        folder.mkdir(exist_ok=True)
        make_file(folder / f"file{index:05}.bin", FILE_SIZE, seed=index)
    acknowledged = {"manifold": [], "rclone full": [], "disk, each synced": []}
    uploaded = {"manifold": [], "rclone full": []}
    with sources.server(kind, work) as server:
        for index in range(rounds):
            beside = work / "beside"
            acknowledged["disk, each synced"].append(FILES / seconds(_copy_synced, tree, beside))
            shutil.rmtree(beside)
            for who, candidate in (("manifold", _ours), ("rclone full", _theirs)):
                with candidate(work, server) as (root, wait):
                    run(["sync"])
                    target = root / f"{who.split()[0]}-{index}"
                    until_copied = seconds(run, ["cp", "-r", str(tree), str(target)])
                    behind = seconds(wait)
                    acknowledged[who].append(FILES / until_copied)
                    uploaded[who].append(FILES / (until_copied + behind))
    report(f"{kind}, 10,000 files of 10 KiB by cp -r until acknowledged", "files/s", acknowledged, "rclone full", 5)
    report(f"{kind}, 10,000 files of 10 KiB by cp -r until acknowledged", "files/s", acknowledged, "disk, each synced")
    report(f"{kind}, 10,000 files of 10 KiB by cp -r until uploaded", "files/s", uploaded, "rclone full", 2)
    shutil.rmtree(tree)
