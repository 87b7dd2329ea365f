"""The four steps of a first fine-tuning lesson through the Python API: load, fine-tune, save, compare.

make demo                                  # once: makes the tiny base model and the data
.venv/bin/python examples/walkthrough.py
"""

from pathlib import Path

from sftjob.app.run import run
from sftjob.data import read_messages
from sftjob.spec import load_spec

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo"


def main() -> None:
    # 1. Load data as ChatML: every row is a list of messages with a role and a content.
    rows = read_messages(DEMO / "train.jsonl")
    print(f"{len(rows)} rows; the first one:")
    for message in rows[0].messages:
        print(f"  {message.role}: {message.content}")

    # 2. Fine-tune with LoRA. A spec is a YAML file; whatever it says can be overridden, as with `sftjob run --set`.
    asked = rows[-1].messages[0].content
    loaded = load_spec(
        HERE / "demo" / "lora.yaml",
        overrides=[
            "name=walkthrough",
            "training.num_train_epochs=2",
            f'evaluation.generation.prompts=["{asked}"]',
            "evaluation.generation.held_out_rows=8",
        ],
    )
    finished = run(loaded)

    # 3. Save: the adapter, its tokenizer and the chat template, ready for AutoModelForCausalLM and PEFT.
    folder = finished.save(DEMO / "walkthrough-adapter")
    print("saved", ", ".join(sorted(path.name for path in folder.iterdir())))

    # 4. Compare answers with the base model's, on held-out questions and on a prompt of our own.
    for answer in finished.evaluation().answers:
        if answer.prompt_format == "template":
            mark = {True: "right", False: "wrong", None: "new prompt"}[answer.match]
            print(f"{answer.model:5}  {answer.prompt.strip()[:60]!r} -> {answer.answer.strip()[:40]!r} ({mark})")


if __name__ == "__main__":
    main()
