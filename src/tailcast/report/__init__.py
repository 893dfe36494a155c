"""From a run directory to what people look at."""
