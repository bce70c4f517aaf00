# SQLite in both of its modes of writing, several processes at once, and a look at its integrity on the disk beneath.
import multiprocessing, os, sqlite3

def work(path, worker, rounds):
    database = sqlite3.connect(path, timeout=120)
    for number in range(rounds):
        with database:
            database.execute("insert into t values (?, ?, ?)", (worker, number, os.urandom(300)))
        if number % 10 == 5:
            with database:
                database.execute("update t set bytes = zeroblob(200) where worker = ? and number < ?", (worker, number))
            with database:
                database.execute("delete from t where worker = ? and number % 7 = 3", (worker,))
    database.close()

for mode in ["delete", "wal", "truncate"]:
    path = mode + ".db"
    database = sqlite3.connect(path, timeout=120)
    assert database.execute("pragma journal_mode = " + mode).fetchone() == (mode,)
    with database:
        database.execute("create table t (worker int, number int, bytes blob)")
        database.execute("create index i on t (worker, number)")
    workers = [multiprocessing.Process(target=work, args=(path, worker, 40)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0, worker.exitcode
    assert database.execute("pragma integrity_check").fetchone() == ("ok",), mode
    count = database.execute("select count(*) from t").fetchone()
    database.execute("vacuum")
    database.close()
    beneath = sqlite3.connect(os.path.join(os.environ["BENEATH"], path))
    assert beneath.execute("pragma integrity_check").fetchone() == ("ok",), mode
    assert beneath.execute("select count(*) from t").fetchone() == count, mode
    beneath.close()
