"""A tour of redis-py: strings, keys, pipelines, a pool of connections, RESP3.

Usage: redis_py_tour.py PORT. Exits with 1 and says where, when an answer is not what redis-py's
users get from Redis.
"""

import asyncio
import sys
import threading

import redis
import redis.asyncio

CONNECTIONS = 50
PORT = int(sys.argv[1])


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, wanted {want!r}")


def raises(what, error, words, call):
    try:
        got = call()
    except error as e:
        if words not in str(e):
            sys.exit(f"{what}: the error is {e!r}, wanted {words!r} in it")
    else:
        sys.exit(f"{what}: got {got!r}, wanted {error.__name__}")


def strings(r):
    same("set", r.set("k", "v"), True)
    same("get", r.get("k"), "v")
    same("get none", r.get("none"), None)
    same("set nx", r.set("k", "w", nx=True), None)
    same("set get", r.set("k", "w", get=True), "v")
    same("set ex", r.set("k", "x", ex=100), True)
    same("ttl", 0 < r.ttl("k") <= 100, True)
    same("set keepttl", r.set("k", "y", keepttl=True), True)
    same("pttl", 0 < r.pttl("k") <= 100_000, True)
    same("getex", r.getex("k", persist=True), "y")
    same("ttl", r.ttl("k"), -1)
    same("getdel", r.getdel("k"), "y")
    same("mset", r.mset({"a": 1, "b": 2, "c": "three"}), True)
    same("mget", r.mget("a", "none", "c"), ["1", None, "three"])
    same("msetnx", r.msetnx({"a": 5, "z": 6}), False)
    same("incr", r.incr("n"), 1)
    same("incrby", r.incrby("n", 41), 42)
    same("decr", r.decr("n", 2), 40)
    same("incrbyfloat", r.incrbyfloat("n", 0.5), 40.5)
    raises("incr", redis.ResponseError, "value is not an integer or out of range", lambda: r.incr("n"))
    same("append", r.append("s", "Hello"), 5)
    same("setrange", r.setrange("s", 7, "World"), 12)
    same("getrange", r.getrange("s", 0, 6), "Hello\0\0")
    same("strlen", r.strlen("s"), 12)
    same("setex", r.setex("e", 100, "v"), True)
    same("psetex", r.psetex("e", 100_000, "v"), True)
    same("lcs", r.execute_command("LCS", "a", "b", "LEN"), 0)
    binary = redis.Redis(port=PORT)
    value = bytes(range(256)) * 4096
    same("set binary", binary.set(b"\0\r\n", value), True)
    same("get binary", binary.get(b"\0\r\n"), value)
    binary.close()


def keys(r):
    r.flushdb()
    same("mset", r.mset({f"key:{n}": n for n in range(1000)}), True)
    same("dbsize", r.dbsize(), 1000)
    same("scan_iter", sorted(r.scan_iter(match="key:*", count=17)), sorted(f"key:{n}" for n in range(1000)))
    same("keys", sorted(r.keys("key:99?")), [f"key:99{n}" for n in range(10)])
    same("exists", r.exists("key:1", "key:2", "none"), 2)
    same("type", r.type("key:1"), "string")
    same("rename", r.rename("key:1", "renamed"), True)
    same("renamenx", r.renamenx("renamed", "key:2"), False)
    raises("rename", redis.ResponseError, "no such key", lambda: r.rename("none", "x"))
    same("copy", r.copy("key:2", "copied"), True)
    same("expire", r.expire("copied", 100), True)
    same("expire nx", r.expire("copied", 100, nx=True), False)
    same("expireat", r.expireat("copied", 4102444800), True)
    same("expiretime", r.expiretime("copied"), 4102444800)
    same("persist", r.persist("copied"), True)
    same("object encoding", r.object("encoding", "key:2"), "int")
    same("touch", r.touch("key:2", "none"), 1)
    same("unlink", r.unlink("key:2", "none"), 1)
    same("delete", r.delete("key:3", "key:4"), 2)
    same("randomkey", r.exists(r.randomkey()), 1)


def pipelines(r):
    pipe = r.pipeline(transaction=False)
    for n in range(5000):
        pipe.set(f"p:{n}", n).get(f"p:{n}")
    same("pipeline", pipe.execute(), [x for n in range(5000) for x in (True, str(n))])
    pipe = r.pipeline(transaction=False)
    pipe.set("s", "text").incr("s").get("s")
    replies = pipe.execute(raise_on_error=False)
    same("error in a pipeline", [replies[0], type(replies[1]), replies[2]], [True, redis.ResponseError, "text"])


def server(r, protocol):
    same("ping", r.ping(), True)
    same("echo", r.echo("hi"), "hi")
    same("client_setname", r.client_setname("tour"), True)
    same("client_getname", r.client_getname(), "tour")
    same("client_id", r.client_id() > 0, True)
    same("client_list", any(c["name"] == "tour" for c in r.client_list()), True)
    same("config_set", r.config_set("maxmemory-policy", "allkeys-lru"), True)
    same("config_get", r.config_get("maxmemory-policy"), {"maxmemory-policy": "allkeys-lru"})
    same("config_set", r.config_set("maxmemory-policy", "noeviction"), True)
    same("info", r.info("server")["redis_mode"], "standalone")
    same("time", len(r.time()), 2)
    same("command_count", r.command_count() > 50, True)
    same("resp", next(c for c in r.client_list() if c["name"] == "tour").get("resp", str(protocol)), str(protocol))
    raises("unknown", redis.ResponseError, "unknown command", lambda: r.execute_command("NONSENSE"))
    raises("arity", redis.ResponseError, "wrong number of arguments", lambda: r.execute_command("GET"))


def pool(protocol):
    shared = redis.ConnectionPool(port=PORT, protocol=protocol, max_connections=CONNECTIONS, decode_responses=True)
    r = redis.Redis(connection_pool=shared)
    r.delete("hits")
    start = threading.Barrier(CONNECTIONS)
    failures = []

    def work(n):
        try:
            with shared_connection(shared) as connection:
                start.wait(timeout=60)
                for i in range(100):
                    connection.set(f"t:{n}", i)
                    if connection.get(f"t:{n}") != str(i):
                        failures.append(n)
                    connection.incr("hits")
        except Exception as e:  # reported by the main thread
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(CONNECTIONS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    same("pool", failures, [])
    same("hits", r.get("hits"), str(CONNECTIONS * 100))
    shared.disconnect()


def shared_connection(shared):
    return redis.Redis(connection_pool=shared, single_connection_client=True)


async def asynchronous(protocol):
    r = redis.asyncio.Redis(port=PORT, protocol=protocol, decode_responses=True, max_connections=CONNECTIONS)
    await r.delete("async")
    replies = await asyncio.gather(*(r.incr("async") for _ in range(CONNECTIONS)))
    same("asyncio", sorted(replies), list(range(1, CONNECTIONS + 1)))
    await r.aclose()


def main():
    for protocol in (2, 3):
        r = redis.Redis(port=PORT, protocol=protocol, decode_responses=True, single_connection_client=True)
        r.flushall()
        strings(r)
        keys(r)
        pipelines(r)
        server(r, protocol)
        pool(protocol)
        asyncio.run(asynchronous(protocol))
        r.close()
    print(f"redis-py {redis.__version__}: everything as expected")


main()
