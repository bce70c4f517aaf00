# One file, changed in every way by chance, against the same bytes in memory: after "fsx" of Apple and its descendants.
# REFUSED names the ways that the source does not do; SEED begins with another seed.
import ctypes, errno, mmap, os, random

MOST, OPERATIONS = 300_000, 1_500
seed = int(os.environ.get("SEED", "1"))
refused = os.environ.get("REFUSED", "").split()
chance = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
KEEP, PUNCH, ZERO = 1, 3, 0x10

file = os.open("fsx", os.O_RDWR | os.O_CREAT | os.O_EXCL)
truth, done = bytearray(), []

def put(offset, new):
    if len(truth) < offset:
        truth.extend(bytes(offset - len(truth)))
    truth[offset:offset + len(new)] = new

def fallocate(mode, offset, length):
    if libc.fallocate(file, mode, offset, length) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def fail(what):
    raise SystemExit(f"seed {seed}: {what} after\n" + "\n".join(done[-30:]))

def same(offset, found, what):
    expected = bytes(truth[offset:offset + len(found)])
    if found != expected:
        at = next(at for at in range(len(found)) if found[at:at + 1] != expected[at:at + 1])
        fail(f"{what} at {offset}: byte {offset + at} is {found[at]}, not {expected[at:at + 1]!r}")

def read(offset, length):
    found = os.pread(file, length, offset)
    if len(found) != max(0, min(length, len(truth) - offset)):
        fail(f"a read of {length} at {offset} gave {len(found)} of {len(truth)}")
    same(offset, found, "read")

def write(offset, length):
    new = chance.randbytes(length)
    at = 0
    while at < length:
        at += os.pwrite(file, new[at:], offset + at)
    put(offset, new)

def truncate(offset, length):
    os.ftruncate(file, offset)
    del truth[offset:]
    put(offset, b"")

def map_read(offset, length):
    if truth:
        with mmap.mmap(file, len(truth), access=mmap.ACCESS_READ) as mapped:
            same(offset, mapped[offset:offset + length], "read by a mapping")

def map_write(offset, length):
    end = min(offset + length, len(truth))
    if offset < end:
        new = chance.randbytes(end - offset)
        with mmap.mmap(file, len(truth)) as mapped:
            mapped[offset:end] = new
            if chance.random() < 0.5:
                mapped.flush()
        put(offset, new)

def copy(offset, length):
    # Within one file, as far as the ranges do not overlap.
    to = offset + length + chance.randrange(50_000)
    copied = os.copy_file_range(file, file, length, offset, to) if offset < len(truth) else 0
    put(to, bytes(truth[offset:offset + copied])) if copied else None

def grow(offset, length):
    fallocate(0, offset, length)
    put(max(offset + length, len(truth)), b"")

def keep(offset, length):
    fallocate(KEEP, offset, length)

def punch(offset, length):
    fallocate(PUNCH, offset, length)
    end = min(offset + length, len(truth))
    if offset < end:
        put(offset, bytes(end - offset))

def zero(offset, length):
    fallocate(ZERO, offset, length)
    put(offset, bytes(length))

def again(offset, length):
    global file
    os.close(file)
    file = os.open("fsx", os.O_RDWR)

def sync(offset, length):
    os.fsync(file)

def append(offset, length):
    new, other = chance.randbytes(length), os.open("fsx", os.O_WRONLY | os.O_APPEND)
    os.write(other, new)
    os.close(other)
    put(len(truth), new)

ways = [read, read, write, write, truncate, map_read, map_write, copy, grow, keep, punch, zero, again, sync, append]
for number in range(OPERATIONS):
    way, offset, length = chance.choice(ways), chance.randrange(MOST), 1 + chance.randrange(30_000)
    if len(truth) > MOST:
        way, offset = truncate, offset // 2
    done.append(f"{number}: {way.__name__} {length} at {offset}, of {len(truth)}")
    try:
        way(offset, length)
        if way.__name__ in refused:
            fail("it was not refused")
    except OSError as error:
        if way.__name__ not in refused or error.errno != errno.EOPNOTSUPP:
            fail(repr(error))
    if os.fstat(file).st_size != len(truth):
        fail(f"its length is {os.fstat(file).st_size}, not {len(truth)}")
    if number % 50 == 49:
        read(0, len(truth) + 1)
os.close(file)
with open("fsx", "rb") as whole:
    same(0, whole.read(), "read anew")
if "BENEATH" in os.environ:
    with open(os.path.join(os.environ["BENEATH"], "fsx"), "rb") as whole:
        same(0, whole.read(), "beneath")
