"""Who does the work that needs the model: this process, or workers of a Ray cluster."""

from tailcast.workers.kit import Kit
from tailcast.workers.local import LocalWorkers, Task, Workers
from tailcast.workers.open import open_workers

__all__ = ["Kit", "LocalWorkers", "Task", "Workers", "open_workers"]
