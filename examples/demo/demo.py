"""The whole path in three to four minutes on two cores, with nothing to download: LoRA, QLoRA and full, compared."""

import subprocess
import sys
from pathlib import Path

from sftjob.app.comparison import compare_runs, write_report
from sftjob.app.run import FinishedRun, PhaseFailed, run
from sftjob.errors import SftjobError
from sftjob.report.terminal import terminal
from sftjob.spec import load_spec

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent.parent / "demo"


def main() -> int:
    if not (OUTPUT / "model" / "config.json").is_file():
        print("making a base model and data (once)", flush=True)
        subprocess.run([sys.executable, HERE / "make_inputs.py", OUTPUT], check=True)
    try:
        specs = {"LoRA": "lora.yaml", "QLoRA": "qlora.yaml", "full fine-tuning": "full.yaml"}
        runs = [fine_tune(title, spec) for title, spec in specs.items()]
        made = compare_runs([finished.store for finished in runs])
        paths = write_report(made, OUTPUT / "report")
    except SftjobError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except PhaseFailed as failed:
        return failed.exit_code
    print(terminal(made.document))
    print("report   " + ", ".join(str(path.relative_to(OUTPUT.parent)) for path in paths))
    return check(runs)


def fine_tune(title: str, spec: str) -> FinishedRun:
    print(f"\n== {title}: sftjob run examples/demo/{spec}", flush=True)
    return run(load_spec(HERE / spec), echo=lambda line: print(line, flush=True))


def check(runs: list[FinishedRun]) -> int:
    """The demo fails when fine-tuning has not visibly helped: it is a test as well as a show."""
    for finished in runs:
        scores = {(score.model, score.prompt_format): score for score in finished.evaluation().scores}
        base = max(score.exact_match or 0.0 for (model, _format), score in scores.items() if model == "base")
        tuned = scores["tuned", "template"].exact_match or 0.0
        if tuned < base + 0.3:
            print(f"error: {finished.run_id}: exact match {tuned:.2f} against the base's {base:.2f}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
