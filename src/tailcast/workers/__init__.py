"""Who does the work that needs model or judge: this process, or workers of a Ray cluster."""

from tailcast.workers.kit import Kit
from tailcast.workers.local import LocalWorkers, Task, Workers
from tailcast.workers.open import open_judges, open_workers

__all__ = ["Kit", "LocalWorkers", "Task", "Workers", "open_judges", "open_workers"]
