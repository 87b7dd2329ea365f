"""A rank that acts out a script instead of training: `actor.py '[["save", 1], …]' --work DIR`. Starts in milliseconds.

It keeps to the protocol of sftjob/train/workdir.py, and imports nothing of ours so that it says what it likes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DEADLINE_SECONDS = 30


class Actor:
    def __init__(self, work: Path, rank: int) -> None:
        self.work = work
        self.rank = rank
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.step = 0

    def save(self, step: int, content: str = "weights") -> None:
        """A checkpoint with two files; its mark last."""
        self.step = step
        folder = self.work / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"state-{self.rank}.bin").write_text(f"{content} {step}")
        (folder / "state.json").write_text(json.dumps({"step": step}))
        (self.work / "checkpoints" / f"saved-{step}-{self.local_rank}").touch()

    def save_broken(self, step: int, name: str, content: str) -> None:
        folder = self.work / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        self.save(step)

    def metric(self, step: int, end: str = "\n") -> None:
        with (self.work / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + end)

    def environment(self) -> None:
        (self.work / "environment.json").write_text("{}")

    def say(self, text: str) -> None:
        print(text, flush=True)

    def signal_supervisor(self, number: int) -> None:
        os.kill(os.getppid(), number)

    def wait_for(self, pattern: str) -> None:
        """A file below the work folder, or its parent when the pattern says so."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not list(self.work.parent.glob(pattern)):
            if time.monotonic() > deadline:
                sys.exit(f"{pattern} did not come")
            time.sleep(0.005)

    def export(self) -> None:
        (self.work / "export").mkdir(exist_ok=True)
        (self.work / "export" / "weights.bin").write_text("weights")
        (self.work / "export" / "config.json").write_text("{}")
        (self.work / "exported").touch()

    def result(self, code: int, reason: str = "") -> None:
        result = {"rank": self.rank, "exit_code": code, "reason": reason, "step": self.step, "time": "2026-01-01"}
        (self.work / "results" / f"{self.rank}.json").write_text(json.dumps(result))

    def done(self) -> None:
        self.export()
        self.result(0)

    def claim(self, attempt: int, owner: str) -> None:
        """Somebody else begins the next attempt."""
        for run in self.work.parent.glob("store/*/attempts"):
            folder = run / str(attempt)
            folder.mkdir()
            claim = {"attempt": attempt, "owner": owner, "time": "2026-01-01"}
            (folder / "claim.json").write_text(json.dumps(claim))

    def orphan(self) -> None:
        """Leaves a process behind in a session of its own; its id is in the file `orphan`."""
        process = subprocess.Popen(["sleep", "600"], start_new_session=True)
        (self.work.parent / "orphan").write_text(str(process.pid))

    def kill(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def hang(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    def environment_variables(self, *names: str) -> None:
        """Their values, in the file `variables-RANK`."""
        (self.work.parent / f"variables-{self.rank}").write_text(json.dumps([os.environ.get(name) for name in names]))

    def note_resume(self) -> None:
        """What it was given to continue from, in the file `resumed`."""
        resume = json.loads((self.work / "rank_input.json").read_text()).get("resume")
        step = json.loads((Path(resume) / "state.json").read_text())["step"] if resume else None
        (self.work.parent / "resumed").write_text(json.dumps(step))


def main() -> None:
    script = json.loads(sys.argv[1])
    actor = Actor(Path(sys.argv[sys.argv.index("--work") + 1]), int(os.environ.get("RANK", "0")))
    for name, *arguments in script:
        getattr(actor, name)(*arguments)


if __name__ == "__main__":
    main()
