#!/usr/bin/env python3
"""What other clients notice while a server grows, walks, flushes and expires; and what idle ones cost.

    benches/load.py PORT growth [KEYS]      SETs through a pipeline; slowest GETs of others meanwhile
    benches/load.py PORT walk               KEYS, SCAN, DBSIZE, RANDOMKEY, FLUSHALL over what is there
    benches/load.py PORT expiry [KEYS]      keys that expire over 30 s under load; how late they go
    benches/load.py PORT idle [CONNECTIONS] memory per idle connection

It speaks to any server of the protocol on the loopback, so that figures stand side by side. A probe is a
process that sends GET, waits for the reply, rests half a millisecond and repeats. On a machine whose
cores are shared a probe may itself wait for a core: `steal` and the same probe on an idle server (the
first line that is printed) say how much of a figure is the machine's.
"""

import multiprocessing as mp
import os
import resource
import socket
import subprocess
import sys
import time


def connect(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def request(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def line(s, *words):
    """Sends a request, returns the first bytes of its reply: enough for replies of one line."""
    s.sendall(request(*words))
    return s.recv(4096)


def whole(s, *words):
    """Sends a request, reads the whole of a bulk reply."""
    s.sendall(request(*words))
    got = s.recv(65536)
    want = got.index(b"\r\n") + 4 + int(got[1 : got.index(b"\r\n")])
    while len(got) < want:
        got += s.recv(65536)
    return got.decode()


def field(s, section, name):
    text = whole(s, "INFO", section)
    return next((l.split(":", 1)[1] for l in text.splitlines() if l.startswith(name + ":")), None)


def probing(port, stop, results):
    s = connect(port)
    ask = request("GET", "key:000000000007")
    took = []
    results.put(None)
    while not stop.is_set():
        began = time.perf_counter()
        s.sendall(ask)
        s.recv(4096)
        took.append(time.perf_counter() - began)
        time.sleep(0.0005)
    results.put(took)


class Probes:
    """Two connections: with two workers, one on each."""

    def __init__(self, port):
        self.stop, self.results = mp.Event(), mp.Queue()
        self.children = []
        for _ in range(2):
            child = mp.Process(target=probing, args=(port, self.stop, self.results))
            child.start()
            self.children.append(child)
            # Connected one after the other, so that they do not end up with the same worker.
            self.results.get()

    def end(self):
        self.stop.set()
        all_took = [self.results.get() for _ in self.children]
        for child in self.children:
            child.join()
        return all_took


def steal():
    with open("/proc/stat") as f:
        return int(f.readline().split()[8]) * 10


def show(what, port, run):
    before = steal()
    probes = Probes(port)
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    lines = []
    for took in probes.end():
        took.sort()
        at = lambda share: took[min(len(took) - 1, int(len(took) * share))] * 1000
        lines.append(f"{at(0.5):.2f} {at(0.99):.2f} {at(0.999):.2f} {at(1):.2f}")
    print(f"{what}: {seconds:.3f} s; GET of others, ms, p50 p99 p99.9 max: {' | '.join(lines)}; steal {steal() - before} ms", flush=True)


def drain_to(s, done):
    """Reads until `done` says that the bytes so far are enough."""
    total, tail = 0, b""
    while True:
        got = s.recv(1 << 20)
        if not got:
            raise EOFError
        total += len(got)
        tail = (tail + got)[-64:]
        if done(total, tail):
            return total


def growth(port, keys):
    def fill():
        s = connect(port)
        value = b"x" * 32
        for first in range(0, keys, 1000):
            n = min(1000, keys - first)
            s.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$32\r\n%s\r\n" % (i, value) for i in range(first, first + n)))
            drain_to(s, lambda total, _: total == 5 * n)

    s = connect(port)
    line(s, "CONFIG", "RESETSTAT")
    show(f"growth to {keys} keys", port, fill)
    for name in ("cmdstat_set", "latency_percentiles_usec_set"):
        print(" ", name, field(s, "commandstats" if name.startswith("cmd") else "latencystats", name))
    print("  used_memory", field(s, "memory", "used_memory"), "rss", field(s, "memory", "used_memory_rss"))


def walk(port):
    s = connect(port)
    show("idle second", port, lambda: time.sleep(1))
    size = line(s, "DBSIZE")
    print("  keys", size.strip().decode())
    show("DBSIZE x1000", port, lambda: [line(s, "DBSIZE") for _ in range(1000)])
    show("RANDOMKEY x1000", port, lambda: [line(s, "RANDOMKEY") for _ in range(1000)])

    def keys(pattern):
        # The mark behind it says where the reply ends.
        s.sendall(request("KEYS", pattern) + request("ECHO", "--the-end--"))
        got = drain_to(s, lambda _, tail: tail.endswith(b"$11\r\n--the-end--\r\n"))
        print(f"  {got} bytes", end=" ")

    show("KEYS * (all in the reply)", port, lambda: keys("*"))
    show("KEYS nothing*", port, lambda: keys("nothing*"))

    def scan():
        cursor, calls = b"0", 0
        while calls == 0 or (cursor != b"0" and calls < 2000):
            s.sendall(request("SCAN", cursor, "MATCH", "nothing*", "COUNT", 1000))
            got = s.recv(65536)
            cursor = got.split(b"\r\n")[2]
            calls += 1

    show("SCAN COUNT 1000, 2000 calls", port, scan)
    show("FLUSHALL", port, lambda: line(s, "FLUSHALL"))
    show("the second after", port, lambda: time.sleep(1))


def expiry(port, keys):
    s = connect(port)
    line(s, "FLUSHALL")
    span = 30_000
    # All are set well before the first is due.
    first = int(time.time() * 1000) + max(4000, keys // 100)
    for at in range(0, keys, 1000):
        n = min(1000, keys - at)
        s.sendall(b"".join(request("SET", f"vol:{i}", "x" * 16, "PXAT", first + i * span // keys) for i in range(at, at + n)))
        drain_to(s, lambda total, _: total == 5 * n)
    line(s, "CONFIG", "RESETSTAT")
    early = first - time.time() * 1000
    load = subprocess.Popen(
        ["redis-benchmark", "-p", str(port), "-t", "set,get", "-r", "100000", "-d", "32", "-P", "4", "-l", "-q"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = steal()
    behind = []
    while True:
        now = time.time() * 1000
        if now > first + span + 3000:
            break
        volatile = field(s, "keyspace", "db0")
        after = time.time() * 1000
        left = int(volatile.split("expires=")[1].split(",")[0]) if volatile else 0
        if now > first:
            due = min(keys, max(0, (now - first) * keys / span))
            # How long ago the key was due that is the oldest still there, were they removed in order.
            late = due - (keys - left)
            behind.append((late * span / keys, late, after - now))
        if left == 0 and now > first + span:
            break
        time.sleep(0.005)
    ended = time.time() * 1000 - first - span
    load.kill()
    load.wait()
    lags = sorted(b[0] for b in behind)
    late = sorted(b[1] for b in behind)
    at = lambda list, share: list[min(len(list) - 1, int(len(list) * share))]
    print(
        f"{keys} keys over 30 s under load (set {early:.0f} ms before the first): due but there, keys p50 {at(late, .5):.0f} p99 {at(late, .99):.0f} max {late[-1]:.0f};"
        f" as time, ms, p50 {at(lags, .5):.1f} p99 {at(lags, .99):.1f} max {lags[-1]:.1f}; the last gone {ended:.0f} ms after its time;"
        f" {len(lags)} looks; steal {steal() - before} ms"
    )
    for name in ("expire_lag_usec_p50", "expire_lag_usec_p99", "expire_lag_usec_max", "expired_stale_perc"):
        value = field(s, "stats", name)
        if value is not None:
            print(" ", name, value)


def rss(port):
    s = connect(port)
    pid = field(s, "server", "process_id")
    with open(f"/proc/{pid}/status") as f:
        kb = next(int(l.split()[1]) for l in f if l.startswith("VmRSS"))
    return kb * 1024, int(field(s, "memory", "used_memory"))


def idle(port, count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A few come and go first, so that what is allocated once is not counted.
    for s in [connect(port) for _ in range(50)]:
        line(s, "PING")
        s.close()
    time.sleep(0.5)
    before = rss(port)
    held = []
    for _ in range(count):
        s = connect(port)
        line(s, "PING")
        held.append(s)
    time.sleep(0.5)
    after = rss(port)
    print(f"{count} idle connections: RSS {(after[0] - before[0]) / count:.0f} bytes each, used_memory {(after[1] - before[1]) / count:.0f} bytes each")
    for s in held:
        s.close()
    time.sleep(1)
    end = rss(port)
    print(f"  when they are gone: RSS +{end[0] - before[0]} bytes, used_memory +{end[1] - before[1]} bytes")


if __name__ == "__main__":
    port, what, rest = int(sys.argv[1]), sys.argv[2], [int(n) for n in sys.argv[3:]]
    if what == "growth":
        growth(port, *(rest or [1_000_000]))
    elif what == "walk":
        walk(port)
    elif what == "expiry":
        expiry(port, *(rest or [1_000_000]))
    elif what == "idle":
        idle(port, *(rest or [1000]))
