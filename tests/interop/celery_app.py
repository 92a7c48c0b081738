"""A small application on Celery with the redis transport and result backend: a kitchen.

Dishes are cooked by a worker process: singly, in chains, groups and chords, later, and again where they
burn. It checks what came of each.

Usage: celery_app.py PORT. Exits with 1 and says where, when something is not as Celery promises it.
"""

import os
import subprocess
import sys
import tempfile
import time

from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError

PORT = int(sys.argv[1]) if len(sys.argv) == 2 else int(os.environ["KITCHEN_PORT"])
PATIENCE = 60

app = Celery("celery_app", broker=f"redis://127.0.0.1:{PORT}/3", backend=f"redis://127.0.0.1:{PORT}/4")
app.conf.update(
    task_default_queue="kitchen",
    task_routes={"celery_app.dessert": {"queue": "sweets"}},
    broker_transport_options={"visibility_timeout": 3600, "priority_steps": list(range(10)), "queue_order_strategy": "priority"},
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def dessert(name):
    return f"sweet {name}"


@app.task(bind=True, max_retries=3)
def souffle(self, falls):
    if self.request.retries < falls:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def burn():
    raise ValueError("burnt")


@app.task
def when():
    return time.time()


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, wanted {want!r}")


def meals():
    results = [add.delay(n, 1) for n in range(100)]
    same("single tasks", [r.get(timeout=PATIENCE) for r in results], list(range(1, 101)))
    same("states", {r.state for r in results}, {"SUCCESS"})
    same("another queue", dessert.delay("cake").get(timeout=PATIENCE), "sweet cake")
    same("chain", chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=PATIENCE), 10)
    same("group", group(add.s(n, n) for n in range(20))().get(timeout=PATIENCE), [2 * n for n in range(20)])
    same("chord", chord((add.s(n, n) for n in range(20)), total.s())().get(timeout=PATIENCE), 380)
    nested = chain(add.s(1, 1), group(add.s(n) for n in range(5)), total.s())
    same("chord in a chain", nested().get(timeout=PATIENCE), 20)


def mishaps():
    same("retries", souffle.delay(2).get(timeout=PATIENCE), 2)
    try:
        burn.delay().get(timeout=PATIENCE)
        sys.exit("a task that fails has a result")
    except ValueError as error:
        same("error", str(error), "burnt")
    late = when.apply_async(countdown=3600)
    late.revoke()
    promised = time.time() + 1
    same("countdown", when.apply_async(countdown=1).get(timeout=PATIENCE) >= promised - 0.1, True)
    # The worker hears of it by publish and subscribe.
    deadline = time.time() + PATIENCE
    while late.id not in str(app.control.inspect(timeout=1).revoked()):
        if time.time() > deadline:
            sys.exit("a revoked task is not known as such")
    early = add.apply_async((1, 1), expires=-1)
    try:
        early.get(timeout=PATIENCE)
        sys.exit("a task that has expired has a result")
    except TaskRevokedError:
        pass


def control():
    same("ping", list(app.control.ping(timeout=5)[0].values()), [{"ok": "pong"}])
    worker = next(iter(app.control.inspect(timeout=5).registered().values()))
    same("registered", "celery_app.souffle" in worker, True)
    with app.connection_or_acquire() as connection:
        same("purged", connection.default_channel.queue_purge("kitchen"), 0)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    log = tempfile.TemporaryFile()
    command = [sys.executable, "-m", "celery", "--app", "celery_app", "worker", "--queues", "kitchen,sweets"]
    command += ["--concurrency", "2", "--loglevel", "info", "--hostname", f"cook-{PORT}@%h"]
    environment = dict(os.environ, KITCHEN_PORT=str(PORT), PYTHONPATH=here, PYTHONDONTWRITEBYTECODE="1")
    worker = subprocess.Popen(command, env=environment, cwd=tempfile.gettempdir(), stdout=log, stderr=log)
    try:
        for part in [meals, mishaps, control]:
            part()
            print(f"{part.__name__} done")
    except BaseException:
        log.seek(0)
        sys.stderr.write(log.read().decode(errors="replace")[-5000:])
        raise
    finally:
        worker.terminate()
        worker.wait(PATIENCE)
    print("everything as expected")


if __name__ == "__main__":
    # The worker knows the tasks by this name.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    os.environ["KITCHEN_PORT"] = str(PORT)
    import celery_app

    celery_app.main()
