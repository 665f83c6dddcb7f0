"""What became of a suite's tests is read and compared as the runner's words promise."""

from __future__ import annotations

from tests.suites.suites import differences, regress_outcomes

SAID = """\
(using existing connection to the server)
test tablespace                   ... ok           19 ms
parallel group (2 tests):  int2 copy
     int2                         ... ok           30 ms
     copy                         ... FAILED       31 ms
"""
DIFFS = """\
diff -U3 /tmp/expected/copy.out /tmp/results/copy.out
--- /tmp/expected/copy.out\t2026-05-11
+++ /tmp/results/copy.out\t2026-11-22
@@ -1,3 +1,2 @@
 same
-wanted
+found
"""


def test_regression_files_are_told_apart_and_say_their_difference() -> None:
    assert regress_outcomes(SAID, DIFFS) == {
        "tablespace": ("passed", ""),
        "int2": ("passed", ""),
        "copy": ("failed", "-wanted\n+found"),
    }


def test_another_outcome_and_a_missing_test_are_differences() -> None:
    direct = {"a::one": ("passed", ""), "a::two": ("failed", "x"), "a::three": ("passed", "")}
    relayed = {"a::one": ("failed", "y"), "a::two": ("failed", "z"), "a::four": ("passed", "")}
    assert differences(direct, relayed) == ["a::four", "a::one", "a::three"]


def test_a_regression_file_that_fails_otherwise_is_a_difference() -> None:
    direct = {"copy": ("failed", "-wanted\n+found")}
    assert differences(direct, direct) == []
    assert differences(direct, {"copy": ("failed", "-wanted\n+refused")}) == ["copy"]
