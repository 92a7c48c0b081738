"""A small application on Redlock: tills that share one account. A lock over three databases of one server,
which stand for three servers, is taken with redlock-py; another with the algorithm of pottery, whose scripts
extend and release it. Money must neither appear nor vanish, whoever holds a lock for too long loses it.

Usage: redlock_app.py PORT. Exits with 1 and says where, when something is not as Redlock promises it.
"""

import sys
import threading
import time

import redis
from pottery import Redlock as PotteryLock
from pottery.exceptions import ExtendUnlockedLock, ReleaseUnlockedLock
from redlock import MultipleRedlockException, Redlock

PORT = int(sys.argv[1])
SERVERS = [redis.Redis(port=PORT, db=db) for db in (5, 6, 7)]


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, wanted {want!r}")


def in_parallel(work):
    errors = []

    def run(n):
        try:
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    same("errors", errors, [])
    same("threads that do not end", [thread for thread in threads if thread.is_alive()], [])


def pay_in(account):
    """What nobody may do at the same time."""
    balance = int(account.get("balance") or 0)
    time.sleep(0.002)
    account.set("balance", balance + 1)


def classic():
    """redlock-py: SET NX PX on each server, and a script that deletes what is one's own."""
    account = redis.Redis(port=PORT)
    account.set("balance", 0)

    def work(_):
        locks = Redlock([{"host": "127.0.0.1", "port": PORT, "db": db} for db in (5, 6, 7)], retry_count=1000, retry_delay=0.01)
        for _ in range(10):
            lock = locks.lock("till", 10_000)
            pay_in(account)
            locks.unlock(lock)

    in_parallel(work)
    same("balance", int(account.get("balance")), 80)
    locks = Redlock([{"host": "127.0.0.1", "port": PORT, "db": db} for db in (5, 6, 7)], retry_count=1)
    mine = locks.lock("till", 300)
    same("there", [server.exists("till") for server in SERVERS], [1, 1, 1])
    same("taken", locks.lock("till", 1000), False)
    deadline = time.time() + 60
    while any(server.exists("till") for server in SERVERS):
        if time.time() > deadline:
            sys.exit("a lock does not expire")
        time.sleep(0.01)
    theirs = locks.lock("till", 60_000)
    # Late, and another's by now.
    locks.unlock(mine)
    same("still theirs", [server.exists("till") for server in SERVERS], [1, 1, 1])
    locks.unlock(theirs)
    # A minority does not count, a majority does.
    SERVERS[0].set("till", "somebody")
    half = locks.lock("till", 1000)
    same("two of three", bool(half), True)
    SERVERS[1].set("till", "somebody")
    same("one of three", locks.lock("till", 1000), False)
    for server in SERVERS:
        server.delete("till")


def extended():
    """pottery: the same with scripts by their SHA, and locks that are extended."""
    account = redis.Redis(port=PORT)
    account.set("balance", 0)

    def lock(key="vault", seconds=10, **options):
        return PotteryLock(key=key, masters=set(SERVERS), auto_release_time=seconds, **options)

    def work(_):
        for _ in range(5):
            with lock():
                pay_in(account)

    in_parallel(work)
    same("balance", int(account.get("balance")), 40)
    mine = lock("short", 0.5)
    same("taken", mine.acquire(), True)
    for _ in range(3):
        time.sleep(0.3)
        mine.extend()
    same("extended", mine.locked() > 0, True)
    same("nobody else", lock("short").acquire(blocking=False), False)
    mine.release()
    for error, late in [(ReleaseUnlockedLock, mine.release), (ExtendUnlockedLock, lock("other").extend)]:
        try:
            late()
            sys.exit(f"{late} of a lock that is not held")
        except error:
            pass


def main():
    for part in [classic, extended]:
        try:
            part()
        except MultipleRedlockException as error:
            sys.exit(f"{part.__name__}: {error}")
        print(f"{part.__name__} done")
    print("everything as expected")


if __name__ == "__main__":
    main()
