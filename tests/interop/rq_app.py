"""A small application on RQ: a print shop. Jobs are queued, wait for each other, come later, fail and are
tried again, and are kept in registries. It checks what came of each.

Usage: rq_app.py PORT. Exits with 1 and says where, when something is not as RQ promises it.
"""

import os
import sys
import time
from datetime import timedelta

import redis
from rq import Queue, Retry, SimpleWorker
from rq.job import Dependency, Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry
from rq.scheduler import RQScheduler

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 6379


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, wanted {want!r}")


def double(n):
    return 2 * n


def total(ids):
    connection = redis.Redis(port=PORT)
    return sum(Job.fetch(id, connection=connection).return_value() for id in ids)


def jam(marker, times):
    """Fails so many times."""
    if redis.Redis(port=PORT).incr(marker) <= times:
        raise RuntimeError("paper jam")
    return "printed"


def work(queues, connection):
    SimpleWorker(queues, connection=connection).work(burst=True, logging_level="CRITICAL")


def prints(connection):
    urgent, usual = Queue("urgent", connection=connection), Queue("usual", connection=connection)
    slow = [usual.enqueue("rq_app.double", n) for n in range(20)]
    fast = urgent.enqueue("rq_app.double", 100)
    same("waiting", (usual.count, urgent.count), (20, 1))
    same("order", [job.id for job in usual.jobs], [job.id for job in slow])
    front = usual.enqueue("rq_app.double", 7, at_front=True)
    same("front", usual.job_ids[0], front.id)
    work([urgent, usual], connection)
    same("results", [job.return_value(refresh=True) for job in slow], [2 * n for n in range(20)])
    for job in [fast, front, *slow]:
        job.refresh()
    same("urgent first", fast.ended_at <= min(job.started_at for job in [front, *slow]), True)
    same("finished", len(FinishedJobRegistry(queue=usual)), 21)
    same("empty", (usual.count, urgent.count), (0, 0))


def dependencies(connection):
    queue = Queue("steps", connection=connection)
    parts = [queue.enqueue("rq_app.double", n) for n in range(5)]
    whole = queue.enqueue("rq_app.total", [job.id for job in parts], depends_on=parts)
    same("deferred", whole.get_status(), "deferred")
    broken = queue.enqueue("rq_app.jam", "never", 1000)
    after_all = queue.enqueue("rq_app.double", 21, depends_on=Dependency([broken], allow_failure=True))
    work([queue], connection)
    same("sum", whole.return_value(refresh=True), 20)
    same("broken", broken.get_status(refresh=True), "failed")
    same("after a failure", after_all.return_value(refresh=True), 42)


def failures(connection):
    queue = Queue("press", connection=connection)
    stubborn = queue.enqueue("rq_app.jam", "stubborn", 2, retry=Retry(max=3))
    hopeless = queue.enqueue("rq_app.jam", "hopeless", 1000, retry=Retry(max=1))
    work([queue], connection)
    same("tried again", stubborn.return_value(refresh=True), "printed")
    failed = FailedJobRegistry(queue=queue)
    same("failed", failed.get_job_ids(), [hopeless.id])
    same("why", "paper jam" in hopeless.latest_result().exc_string, True)
    connection.set("hopeless", 5000)
    failed.requeue(hopeless.id)
    work([queue], connection)
    same("requeued", hopeless.return_value(refresh=True), "printed")
    gone = queue.enqueue("rq_app.double", 1)
    gone.cancel()
    gone.delete()
    work([queue], connection)
    same("deleted", connection.exists(gone.key), 0)


def schedule(connection):
    queue = Queue("later", connection=connection)
    soon = queue.enqueue_in(timedelta(seconds=1), "rq_app.double", 4)
    late = queue.enqueue_in(timedelta(hours=1), "rq_app.double", 5)
    scheduled = ScheduledJobRegistry(queue=queue)
    same("scheduled", sorted(scheduled.get_job_ids()), sorted([soon.id, late.id]))
    scheduler, rival = (RQScheduler([queue], connection=connection) for _ in range(2))
    same("one scheduler", (len(scheduler.acquire_locks()), len(rival.acquire_locks())), (1, 0))
    deadline = time.time() + 60
    while queue.count == 0:
        scheduler.enqueue_scheduled_jobs()
        if time.time() > deadline:
            sys.exit("a scheduled job does not come")
        time.sleep(0.05)
    scheduler.release_locks()
    work([queue], connection)
    same("came", soon.return_value(refresh=True), 8)
    same("still to come", scheduled.get_job_ids(), [late.id])


def main():
    connection = redis.Redis(port=PORT)
    for part in [prints, dependencies, failures, schedule]:
        part(connection)
        print(f"{part.__name__} done")
    print("everything as expected")


if __name__ == "__main__":
    # The worker knows the functions by this name.
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import rq_app

    rq_app.main()
