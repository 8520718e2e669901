"""Shows a failure when it happens: pytest itself does after the last test, which may be minutes later."""

from __future__ import annotations

import pytest


class _FailureLines:
    """Print a line for each failure.

    Args:
        config: of the process that reports, which with several processes runs no test itself.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (crash.message if crash else report.longreprtext).strip().partition("\n")[0]
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when}): {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_FailureLines(config))
