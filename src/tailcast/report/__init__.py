"""From run directories to pages, figures and tables; never touches a model."""

from tailcast.report.figures import KINDS, draw
from tailcast.report.look import DARK, LIGHT
from tailcast.report.page import write_report
from tailcast.report.render import save_chart
from tailcast.report.run import Run, read_run

__all__ = ["DARK", "KINDS", "LIGHT", "Run", "draw", "read_run", "save_chart", "write_report"]
