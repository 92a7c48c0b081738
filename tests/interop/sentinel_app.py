"""An application that finds its primary through redis-sentinel, with redis-py: counters, which are counted up while the
primary is killed and another takes its place. Replies may fail meanwhile; what two replicas had confirmed must be there in
the end, and a reader that asks replicas goes on as well. Prints how long nothing could be written.

Usage: sentinel_app.py PORT..., the ports of the sentinels. It says "counting" when it has begun, and ends when standard input
does. Exits with 1 and says where, when something is not as promised.
"""

import sys
import threading
import time

import redis
from redis.sentinel import Sentinel

NAME = "gem"
COUNTERS = 50
PATIENCE = 60

sentinel = Sentinel([("127.0.0.1", int(port)) for port in sys.argv[1:]], socket_timeout=1)
primary = sentinel.master_for(NAME, socket_timeout=1)
replica = sentinel.slave_for(NAME, socket_timeout=1)
stopped = threading.Event()
confirmed = {}
figures = {"written": 0, "failed": 0, "gap": 0.0, "read": 0}


def count():
    last, n = time.monotonic(), 0
    while not stopped.is_set():
        key = f"counter:{n % COUNTERS}"
        try:
            value = primary.incr(key)
            if primary.wait(2, 100) == 2:
                confirmed[key] = value
        except redis.RedisError:
            figures["failed"] += 1
            time.sleep(0.01)
            continue
        now = time.monotonic()
        figures["gap"], last = max(figures["gap"], now - last), now
        figures["written"] += 1
        n += 1


def read():
    while not stopped.is_set():
        try:
            replica.get("counter:0")
            figures["read"] += 1
        except redis.RedisError:
            pass
        time.sleep(0.01)


def finally_there(key, least):
    began = time.monotonic()
    while True:
        try:
            value = int(primary.get(key) or 0)
            break
        except redis.RedisError as error:
            if time.monotonic() - began > PATIENCE:
                sys.exit(f"{key}: {error}")
            time.sleep(0.05)
    if value < least:
        sys.exit(f"{key} is {value}, and {least} was confirmed by two replicas")


threads = [threading.Thread(target=work, daemon=True) for work in (count, read)]
for thread in threads:
    thread.start()
began = time.monotonic()
while not (figures["written"] > 100 and figures["read"] > 0 and confirmed):
    if time.monotonic() - began > PATIENCE:
        sys.exit(f"it does not begin: {figures}")
    time.sleep(0.02)
print("counting", flush=True)
before = None
for line in sys.stdin:
    # From here on the new primary must take writes.
    before = dict(figures)
began = time.monotonic()
while before and (figures["written"] <= before["written"] or figures["read"] <= before["read"]):
    if time.monotonic() - began > PATIENCE:
        sys.exit(f"it does not go on: {figures}")
    time.sleep(0.02)
stopped.set()
for thread in threads:
    thread.join(PATIENCE)
for key, least in confirmed.items():
    finally_there(key, least)
print(f"redis-py: everything as expected, nothing was written for {figures['gap']:.2f} s at most: {figures}")
