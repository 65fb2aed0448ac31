"""`count.py REPORT PROBLEMS FAILED`: prints how many tests of a JUnit report passed, failed and were skipped.

Writes what is to be said of those that did not pass, and the ids of those that failed.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main() -> None:
    passed = failed = skipped = 0
    problems = []
    ids = []
    for case in ElementTree.parse(sys.argv[1]).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            ids.append(f"{str(case.get('classname')).replace('.', '/')}.py::{case.get('name')}")
            problems.append(f"python {name} ... FAILED")
        elif (skip := case.find("skipped")) is not None:
            skipped += 1
            problems.append(f"python {name} ... SKIPPED: {skip.get('message')}")
        else:
            passed += 1
    if passed + failed + skipped == 0:
        sys.exit("the report has no tests")
    Path(sys.argv[2]).write_text("".join(line.replace("\n", " ") + "\n" for line in problems))
    Path(sys.argv[3]).write_text("".join(line + "\n" for line in ids))
    print(passed, failed, skipped)


if __name__ == "__main__":
    main()
