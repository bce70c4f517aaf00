# Works in a database until its disk is gone, and says on its output which row was committed last; or, if told to, looks
# whether all rows are there up to one.
import sqlite3, sys

path, mode, last = sys.argv[1], sys.argv[2], sys.argv[3:]
database = sqlite3.connect(path, timeout=60, isolation_level=None)
database.execute("pragma synchronous = full")
if last:
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    numbers = [row[0] for row in database.execute("select number from t order by number")]
    assert numbers == list(range(len(numbers))), "rows are missing in between"
    assert len(numbers) > int(last[0]), f"{len(numbers)} rows are there, and {last[0]} was committed"
    sizes = database.execute("select count(*) from t where length(bytes) != 100 + number % 1000").fetchone()
    assert sizes == (0,), "rows are not what they were"
    sys.exit()
assert database.execute("pragma journal_mode = " + mode).fetchone() == (mode,)
database.execute("create table if not exists t (number integer primary key, bytes blob)")
number = database.execute("select coalesce(max(number) + 1, 0) from t").fetchone()[0]
while True:
    database.execute("begin immediate")
    database.execute("insert into t values (?, zeroblob(?))", (number, 100 + number % 1000))
    database.execute("commit")
    print(number, flush=True)
    number += 1
