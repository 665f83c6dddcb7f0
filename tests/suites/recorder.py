"""A pytest plugin that writes what became of each test, by its id, as JSON to RECORDER_FILE.

It is loaded into the environments of other projects' suites, so it imports nothing of this one.
"""

import json
import os
from pathlib import Path

outcomes = {}


def pytest_runtest_logreport(report):
    said = str(report.longrepr).strip().splitlines() if report.longrepr else []
    errors = [line[2:].strip() for line in said if line.startswith("E  ")] or said[-1:]
    seen = outcomes.get(report.nodeid)
    if hasattr(report, "wasxfail"):
        outcome = "xpassed" if report.passed else "xfailed"
    elif report.failed and report.when != "call":
        outcome = "error"
    else:
        outcome = report.outcome
    # a test has three phases; what is worse than a pass stays
    if seen is None or seen[0] == "passed":
        outcomes[report.nodeid] = (outcome, " | ".join(errors)[:600])


def pytest_sessionfinish(session):
    Path(os.environ["RECORDER_FILE"]).write_text(json.dumps(outcomes), encoding="utf-8")
