"""An application on a cluster that is changed under it: counters, which redis-py counts up all the while that slots are
moved key by key, moved as a whole, and a primary hands over to its replica. A counter must never be anything but what
the replies so far say, and how long clients waited at most is printed for each change.

Beside it cluster_app.js counts with ioredis, where NODE_PATH says where that is, and redis-benchmark writes.

Usage: cluster_app.py PORT... The first three nodes are primaries, the fourth is a replica of the first. Exits with 1 and
says where, when something is not as a cluster promises it.
"""

import atexit
import os
import pathlib
import subprocess
import sys
import threading
import time

import redis
from redis.cluster import RedisCluster

PORTS = [int(port) for port in sys.argv[1:]]
THREADS = 4
COUNTERS = 60
PATIENCE = 90


def node(port):
    return redis.Redis(port=port, decode_responses=True, socket_timeout=PATIENCE)


def myid(port):
    return node(port).execute_command("CLUSTER MYID")


def until(what, done):
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"{what}: not after {PATIENCE} seconds")
        time.sleep(0.05)


def cli(*words):
    made = subprocess.run(["redis-cli", "--cluster", *map(str, words)], capture_output=True, text=True)
    if made.returncode:
        sys.exit(f"redis-cli --cluster {words}: {made.stdout}{made.stderr}")


class Load:
    """Threads that count up, and note what they were told and how long it took."""

    def __init__(self):
        self.stopped = False
        self.errors = []
        self.slowest = [0.0] * THREADS
        self.counted = 0
        # Of a program that has seen something wrong they are not waited for.
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def run(self, n):
        try:
            client = RedisCluster(host="127.0.0.1", port=PORTS[1], socket_timeout=PATIENCE, cluster_error_retry_attempts=20)
            known = {}
            while not self.stopped:
                for i in range(COUNTERS):
                    # Slots of all parts of the cluster, and of those that move.
                    key = f"{{{('06S', 'Qi', i)[i % 3]}}}:{n}:{i}"
                    began = time.monotonic()
                    told = client.incr(key)
                    self.slowest[n] = max(self.slowest[n], time.monotonic() - began)
                    known[key] = known.get(key, 0) + 1
                    if told != known[key]:
                        raise AssertionError(f"{key}: got {told}, wanted {known[key]}")
                    self.counted += 1
            for key, value in known.items():
                if int(client.get(key)) != value:
                    raise AssertionError(f"{key} is {client.get(key)} in the end, wanted {value}")
        except BaseException as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def during(self, what, change):
        self.slowest = [0.0] * THREADS
        before, began = self.counted, time.monotonic()
        change()
        took = time.monotonic() - began
        time.sleep(0.3)
        if self.errors:
            sys.exit(f"{what}: {self.errors[0]}")
        if self.counted == before:
            sys.exit(f"{what}: nobody was answered")
        print(f"{what}: {took:.2f} s, the longest wait {max(self.slowest) * 1000:.0f} ms")

    def end(self):
        self.stopped = True
        for thread in self.threads:
            thread.join(PATIENCE)
        if self.errors:
            sys.exit(f"in the end: {self.errors[0]}")


class Others:
    """Other clients, which are to see as little of it."""

    def __init__(self):
        script = pathlib.Path(__file__).with_name("cluster_app.js")
        js = ["node", script, *PORTS] if "NODE_PATH" in os.environ else []
        benchmark = ["redis-benchmark", "--cluster", "-p", PORTS[1], "-t", "set,incr", "-r", 10000, "-c", 10, "-n", 10**9, "-q"]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.js = subprocess.Popen(list(map(str, js)), text=True, **pipes) if js else None
        self.benchmark = subprocess.Popen(list(map(str, benchmark)), **pipes)

    def kill(self):
        for process in filter(None, (self.js, self.benchmark)):
            process.kill()
            process.wait()

    def end(self):
        if self.benchmark.poll() is not None:
            sys.exit(f"redis-benchmark ended: {self.benchmark.communicate()[0][-1000:]}")
        self.benchmark.terminate()
        said = self.benchmark.communicate()[0]
        if b"Error" in said or b"ERR" in said:
            sys.exit(f"redis-benchmark: {said[-1000:]}")
        if self.js:
            said, _ = self.js.communicate(timeout=PATIENCE)
            if self.js.returncode:
                sys.exit(f"cluster_app.js: {said}")
            print(said, end="")


def is_owner(target, *wanted):
    """Whether everybody knows that a node serves these slots."""
    def owner(port, slot):
        return next((primary for first, last, primary in slots(port) if first <= slot <= last), None)

    return all(owner(port, slot) == target for port in PORTS for slot in wanted)


def slots(port):
    raw = redis.Redis(port=port).execute_command("CLUSTER SHARDS")
    found = []
    for shard in raw:
        fields = shard if isinstance(shard, dict) else dict(zip(shard[::2], shard[1::2]))
        fields = {key.decode(): value for key, value in fields.items()}
        nodes = [n if isinstance(n, dict) else dict(zip(n[::2], n[1::2])) for n in fields["nodes"]]
        primary = [int(n[b"port"]) for n in nodes if n[b"role"] == b"master" and n[b"health"] == b"online"]
        ranges = fields["slots"]
        for first, last in zip(ranges[::2], ranges[1::2]):
            found.append((int(first), int(last), primary[0] if primary else None))
    return found


def reshard(source, target, count):
    cli("reshard", f"127.0.0.1:{PORTS[1]}", "--cluster-from", myid(source), "--cluster-to", myid(target),
        "--cluster-slots", count, "--cluster-yes")


def migrate(source, target):
    node(source).execute_command("CLUSTER MIGRATESLOTS", "SLOTSRANGE", 0, 99, "NODE", myid(target))
    until("the slots have moved", lambda: is_owner(target, 0, 99))


def take_back(target):
    node(target).execute_command("CLUSTER MIGRATION", "IMPORT", 0, 99)
    until("the slots are back", lambda: is_owner(target, 0, 99))


def fail_over(replica):
    node(replica).execute_command("CLUSTER FAILOVER")
    until("the replica is a primary", lambda: node(replica).execute_command("ROLE")[0] in ("master", b"master"))
    until("everybody knows", lambda: is_owner(replica, 0))


load = Load()
others = Others()
atexit.register(others.kill)
time.sleep(1)
load.during("a reshard of 20 slots", lambda: reshard(PORTS[0], PORTS[1], 20))
load.during("and back", lambda: reshard(PORTS[1], PORTS[0], 20))
load.during("a move of 100 slots as a whole", lambda: migrate(PORTS[0], PORTS[2]))
load.during("and back, asked for by the target", lambda: take_back(PORTS[0]))
load.during("a failover", lambda: fail_over(PORTS[3]))
load.end()
others.end()
print(f"everything as expected: {load.counted} replies")
