"""One pod of several as a process of its own: `pod.py SETTINGS SCRIPT PREPARE`, with ranks that act out a script."""

import json
import sys
from pathlib import Path

from sftjob.train import supervisor
from sftjob.train.membership import Peers
from sftjob.train.settings import Settings

HERE = Path(__file__).parent


def main() -> int:
    given = json.loads(sys.argv[1])
    Peers.__init__.__kwdefaults__["lease_lost_seconds"] = given.pop("lease_lost_seconds", 120)  # type: ignore[index]
    supervisor.AGREE_SECONDS = given.pop("agree_seconds", 20.0)  # type: ignore[misc]
    settings = Settings(spec=Path(given.pop("spec")), work=Path(given.pop("work")), inputs={}, **given)
    python = (sys.executable, "-S", "-E")
    programs = supervisor.Programs(
        worker=(*python, str(HERE / "actor.py"), sys.argv[2]), prepare=(*python, str(HERE / "preparer.py"), sys.argv[3])
    )
    verdict = supervisor.supervise(settings, programs)
    print(json.dumps({"code": verdict.code, "reason": verdict.reason, "step": verdict.step}), flush=True)
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
