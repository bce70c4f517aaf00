# Shared mappings: written by one process, seen by another, by reads and on the disk; and mixed with plain writes.
import mmap, os, subprocess, sys, time

SIZE = 1 << 20
with open("mapped", "w+b") as file:
    file.truncate(SIZE)
    old = os.stat("mapped").st_mtime_ns
    shared = mmap.mmap(file.fileno(), SIZE)
    shared[1000:1005] = b"hello"
    shared[SIZE - 3:] = b"end"
    with open("mapped", "rb") as reader:
        reader.seek(1000)
        assert reader.read(5) == b"hello"
    code = "import mmap\nf = open('mapped', 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nassert m[1000:1005] == b'hello'\nm[0:5] = b'other'\nm.flush()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert shared[0:5] == b"other"
    os.pwrite(file.fileno(), b"plain", 5000)
    assert shared[5000:5005] == b"plain"
    shared.flush()
    os.fsync(file.fileno())
    seen, beneath = os.stat("mapped"), os.stat(os.path.join(os.environ["BENEATH"], "mapped"))
    assert (seen.st_size, seen.st_mtime_ns) == (beneath.st_size, beneath.st_mtime_ns) and seen.st_mtime_ns > old
    shared.close()
with open(os.path.join(os.environ["BENEATH"], "mapped"), "rb") as file:
    whole = file.read()
assert whole[:5] == b"other" and whole[1000:1005] == b"hello" and whole[5000:5005] == b"plain" and whole[-3:] == b"end"
