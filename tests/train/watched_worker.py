"""`sftjob.train.worker`, which also leaves the trained model's logits in `logits.pt` before it exports."""

import sys
from pathlib import Path
from typing import Final

from sftjob.train.worker import main

PROMPT: Final = [[64, 11, 12, 65, 64, 12, 11]]
LOGITS: Final = "logits.pt"


def watch(work: Path) -> None:
    import torch  # noqa: PLC0415 - the worker chooses variables of libraries first

    from sftjob.methods import FineTuning  # noqa: PLC0415
    from sftjob.train.rank import Rank  # noqa: PLC0415
    from sftjob.train.trainer import RunTrainer  # noqa: PLC0415

    export = Rank._export

    def watched(self: Rank, method: FineTuning, trainer: RunTrainer) -> None:
        trainer.model.eval()
        with torch.no_grad():  # on every rank: under ZeRO-3 a layer's weights come from all of them
            logits = trainer.model(input_ids=torch.tensor(PROMPT), use_cache=False).logits
        if self._place.first:
            torch.save(logits, work / LOGITS)
        export(self, method, trainer)

    Rank._export = watched  # type: ignore[method-assign]


if __name__ == "__main__":
    import os

    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    watch(Path(sys.argv[sys.argv.index("--work") + 1]))
    sys.exit(main())
