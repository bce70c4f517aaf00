# Locks of both kinds between processes, and exclusive creation as a lock.
import errno, fcntl, os, subprocess, sys

def other(code):
    return subprocess.run([sys.executable, "-c", "import errno, fcntl, os\n" + code]).returncode

file = open("lock", "w+")
fcntl.flock(file, fcntl.LOCK_EX)
busy = "f = open('lock', 'r+')\ntry:\n  fcntl.%s\n  os._exit(0)\nexcept OSError as e:\n  os._exit(7 if e.errno in (errno.EAGAIN, errno.EACCES) else 1)"
assert other(busy % "flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)") == 7
fcntl.flock(file, fcntl.LOCK_UN)
assert other(busy % "flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)") == 0
fcntl.lockf(file, fcntl.LOCK_EX, 10, 100)
assert other(busy % "lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 105)") == 7
assert other(busy % "lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 110)") == 0
file.close()
assert other(busy % "lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 105)") == 0

count = """
for _ in range(100):
    while True:
        try:
            os.close(os.open('held', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            pass
    with open('count', 'r+') as f:
        number = int(f.read() or 0)
        f.seek(0)
        f.write(str(number + 1))
    os.unlink('held')
"""
open("count", "w").close()
workers = [subprocess.Popen([sys.executable, "-c", "import os\n" + count]) for _ in range(3)]
assert [worker.wait() for worker in workers] == [0, 0, 0]
assert open("count").read() == "300"
