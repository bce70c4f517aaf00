# Several processes write to one database, in each of SQLite's ways to keep a journal.
import multiprocessing, os, sqlite3

def work(path, worker, rounds):
    database = sqlite3.connect(path, timeout=120)
    for number in range(rounds):
        with database:
            database.execute("insert into t values (?, ?, ?)", (worker, number, os.urandom(300)))
        if number % 5 == 3:
            with database:
                database.execute("update t set bytes = zeroblob(200) where worker = ? and number < ?", (worker, number))
    database.close()

for mode in ["delete", "wal", "truncate"]:
    path = mode + ".db"
    database = sqlite3.connect(path, timeout=120)
    assert database.execute("pragma journal_mode = " + mode).fetchone() == (mode,)
    with database:
        database.execute("create table t (worker int, number int, bytes blob)")
    workers = [multiprocessing.Process(target=work, args=(path, worker, 8)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0, worker.exitcode
    assert database.execute("pragma integrity_check").fetchone() == ("ok",), mode
    assert database.execute("select count(*) from t").fetchone() == (16,), mode
    database.execute("vacuum")
    database.close()
