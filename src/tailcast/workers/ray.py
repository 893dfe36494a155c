"""Workers of a Ray cluster.

Each is an actor with a model of its own, or with a judge and no model. Ray places it, starts
it anew when it dies, and does its unfinished tasks again; a task is a pure function, so that
it does not matter that one may be done twice: the driver takes one outcome of it. What Ray
would wait for without an end is bounded here: a worker that does not answer for a while is
given up, its tasks go to the others, and that is said.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from tailcast.config import RunConfig
from tailcast.errors import MissingExtra, WorkersError
from tailcast.workers.kit import Kit
from tailcast.workers.local import Task

__all__ = ["PATIENCE", "RayWorkers"]

PATIENCE = 120.0
"""Seconds without an answer, once or twice of them, after which a worker is given up.

One that has yet to start has five times as many; it is given no task before."""

_START = 5  # times that patience for a worker that has yet to start
_AHEAD = 2  # tasks that a worker has at one time: it need not wait for the driver
_RESTARTS = 4
_TRIES = 3  # of a task whose worker Ray could not keep alive

AnyTask = TypeVar("AnyTask", bound=Task)
Found = TypeVar("Found")


class _Actor:
    """One worker, in a process of its own."""

    def __init__(self, kit: Kit, threads: int, folder: str) -> None:
        self.kit = kit
        self.threads = threads
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if Path(folder).is_dir():
            os.chdir(folder)  # relative paths mean what they mean to the driver

    def do(self, work: Callable[[Kit, Any], Any], task: Any) -> Any:
        torch.set_num_threads(self.threads)  # Ray's own choice would round otherwise
        return work(self.kit, task)

    def pulse(self) -> int:
        """Answers while :meth:`do` works."""
        return os.getpid()


class RayWorkers:
    """Actors of a cluster, one for each GPU, or for each core where there is none.

    Each has two tasks at a time and takes the next one where :meth:`map` is asked for more. So
    workers whose outcomes are the tasks of others wait for these, with two outcomes each at most.

    Args:
        kit: What they work with; each loads its own.
        address: "local", "auto" or "ray://HOST:PORT".
        number: How many; as many as the cluster has room for if None.
        say: Told what happens to them.
        patience: Instead of :data:`PATIENCE`.
        word: What each is called: "judge" for those that hold no model.

    Raises:
        MissingExtra: If Ray is not installed.
        WorkersError: If no such cluster answers.
    """

    def __init__(
        self, kit: Kit, address: str, *, number: int | None, say: Callable[[str], None],
        patience: float | None = None, word: str = "worker",
    ) -> None:  # fmt: skip
        self.ray = _ray()
        self.say = say
        self.word = word
        self.patience = patience or PATIENCE
        self.connected = not self.ray.is_initialized()
        if self.connected:
            _connect(self.ray, address, number and number + (kit.config.judges or 0))
        if word == "judge":
            share, room = {"num_cpus": 1, "num_gpus": kit.config.judge_gpus or 0}, 0
        else:
            share, room = _share(self.ray.cluster_resources(), kit.config)
        self.started = number or max(room, 1)
        kind = self.ray.remote(concurrency_groups={"pulse": 1})(_marked(self.ray, word))
        made = kind.options(max_restarts=_RESTARTS, max_task_retries=_RESTARTS, **share)
        self.actors = {
            worker: made.remote(kit, torch.get_num_threads(), str(Path.cwd()))
            for worker in range(1, self.started + 1)
        }
        self.begun = time.monotonic()
        self._listen()
        self.asleep = dict(self.pulses)
        self.starting = set(self.actors)
        self.counters = _counters(kit.config.out or "") if word == "worker" else []
        say(f"{self.started} {word}s by Ray ({address}), {_words(share)} each.")

    def map(
        self, work: Callable[[Kit, AnyTask], Found], tasks: Iterable[AnyTask]
    ) -> Iterator[tuple[AnyTask, Found]]:
        """Every task with its outcome, in the order in which they are finished.

        Raises:
            WorkersError: If no worker is left, or a task ends every worker that it is given.
            TailcastError: Whatever the work raises.
        """
        source, again = iter(tasks), deque[AnyTask]()
        pending: dict[Any, tuple[int, AnyTask]] = {}
        failures: Counter[str] = Counter()
        while True:
            for worker in self._free(pending):
                task = again.popleft() if again else next(source, None)
                if task is None:
                    break
                pending[self.actors[worker].do.remote(work, task)] = worker, task
            if not pending:
                return
            signs = self.asleep.values()
            ready, _ = self.ray.wait([*pending, *signs], timeout=self.patience)
            for ref in ready:
                if ref not in pending:  # a sign of life
                    continue
                worker, task = pending.pop(ref)
                finished, found = self._outcome(ref, worker)
                if finished:
                    yield task, found
                    continue
                again.append(task)
                failures[task.name] += worker not in self.actors
                self._check_tries(task, failures)
            self._give_up_silent()
            lost = [ref for ref, (worker, _) in pending.items() if worker not in self.actors]
            again.extend(pending.pop(ref)[1] for ref in lost)

    def count(self, draws: int, hits: int) -> None:
        """Add to Ray's metrics."""
        for counter, number in zip(self.counters, (draws, hits), strict=True):
            if number:
                counter.inc(number)

    def close(self) -> None:
        """End the workers, and what was started for them."""
        for worker in list(self.actors):
            self._end(worker)
        if self.connected:
            self.ray.shutdown()

    def _free(self, pending: dict[Any, tuple[int, Any]]) -> Iterator[int]:
        """Workers that can take a task, those with fewest first; waits while none is awake."""
        while not (awake := [worker for worker in list(self.actors) if self._awake(worker)]):
            if not self.actors:
                raise WorkersError(
                    f"none of {self.started} {self.word}s is left: see that the cluster has room "
                    "for one, and run again; what was finished is kept."
                )
            time.sleep(0.2)
            self._give_up_silent()
        busy = Counter(worker for worker, _ in pending.values())
        for load in range(_AHEAD):
            yield from [worker for worker in awake if busy[worker] <= load]

    def _awake(self, worker: int) -> bool:
        """Whether a worker is known to answer again, if it could not be reached."""
        sign = self.asleep.get(worker)
        if sign is None:
            return True
        if not self.ray.wait([sign], timeout=0)[0]:
            return False
        try:
            self.ray.get(sign)
        except self.ray.exceptions.ActorDiedError as error:
            self._give_up(worker, f"died ({_first(error)})")
            return False
        except self.ray.exceptions.RayError:
            time.sleep(0.2)
            self.asleep[worker] = self.actors[worker].pulse.remote()
            return False
        del self.asleep[worker]
        self.starting.discard(worker)
        return True

    def _outcome(self, ref: Any, worker: int) -> tuple[bool, Any]:
        """Whether a task was finished, and what it brought."""
        errors = self.ray.exceptions
        try:
            return True, self.ray.get(ref)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.ActorDiedError as error:
            if worker in self.actors:
                self._give_up(worker, f"died ({_first(error)})")
        except errors.RayError:
            if worker in self.actors and worker not in self.asleep:
                self.say(f"{self._name(worker)} cannot be reached: what it had is done again.")
                self.asleep[worker] = self.actors[worker].pulse.remote()
        return False, None

    def _check_tries(self, task: Task, failures: Counter[str]) -> None:
        if failures[task.name] >= _TRIES:
            raise WorkersError(
                f"{task.name}: no {self.word} lived to the end of it, {_TRIES} were tried: read "
                "their logs under /tmp/ray/session_latest/logs; lower batch if memory is short."
            )

    def _listen(self) -> None:
        """Ask every worker for a sign of life."""
        self.asked = time.monotonic()
        self.pulses = {worker: actor.pulse.remote() for worker, actor in self.actors.items()}

    def _give_up_silent(self) -> None:
        """Give up the workers that gave none since they were asked."""
        if time.monotonic() - self.asked < self.patience:
            return
        pulses = [ref for worker, ref in self.pulses.items() if worker in self.actors]
        heard = self.ray.wait(pulses, num_returns=len(pulses), timeout=0)[0] if pulses else []
        waited = time.monotonic() - self.begun
        for worker, ref in self.pulses.items():
            if worker not in self.actors or ref in heard:
                continue
            if worker not in self.starting:
                self._give_up(worker, f"has not answered for {self.patience:.0f} s")
            elif waited > _START * self.patience:
                self._give_up(worker, f"has not started for {waited:.0f} s")
        self._listen()

    def _give_up(self, worker: int, why: str) -> None:
        self._end(worker)
        self.say(
            f"{self._name(worker)} {why}: its node may be lost, or no node has room for it; "
            f"{len(self.actors)} others are left to do its tasks."
        )

    def _name(self, worker: int) -> str:
        return f"{self.word.capitalize()} {worker}"

    def _end(self, worker: int) -> None:
        self.asleep.pop(worker, None)
        self.ray.kill(self.actors.pop(worker))


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's is 15, and this process's is not
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "--ray") from error
    return ray


def _marked(ray: Any, word: str) -> type[_Actor]:
    """The actor's class, by whose name its process is called; it gives signs of life meanwhile."""
    pulse = ray.method(concurrency_group="pulse")(_Actor.pulse)
    return type(word.capitalize(), (_Actor,), {"pulse": pulse})


def _counters(run: str) -> list[Any]:
    """Draws and hits among Ray's metrics, by run directory."""
    from ray.util.metrics import Counter as Metric

    whats = {"tailcast_draws": "Draws that are judged.", "tailcast_hits": "Hits among them."}
    counters = [Metric(name, description=text, tag_keys=("run",)) for name, text in whats.items()]
    for counter in counters:
        counter.set_default_tags({"run": run})
    return counters


def _connect(ray: Any, address: str, number: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            ray.init(address="local", num_cpus=number, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise WorkersError(
            f"no Ray cluster answers at {address!r} ({_first(error)}): start one with ray start "
            "--head, or use --ray local."
        ) from None


def _share(resources: dict[str, float], config: RunConfig) -> tuple[dict[str, float], int]:
    """What one worker takes of a cluster, and for how many it has room beside the judges."""
    judges = config.judges or 0
    gpus = resources.get("GPU", 0) - judges * (config.judge_gpus or 0)
    each = config.gpus_per_worker or 1
    if config.gpus_per_worker or ("GPU" in resources and config.device != "cpu"):
        return {"num_gpus": each, "num_cpus": 1}, int((gpus + 1e-6) // each)
    return {"num_cpus": 1}, int(resources.get("CPU", 0)) - judges


def _words(share: dict[str, float]) -> str:
    """A share for the reader of a message."""
    gpus = share.get("num_gpus", 0)
    if not gpus:
        return "one core"
    return "one GPU" if gpus == 1 else f"{gpus:g} GPUs"


def _first(error: BaseException) -> str:
    """The first line of an error's text, without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split("\t")[0].rstrip(".:")
