"""What the help of each command ends with: calls that work as they stand, and the tasks. Knows nothing of the options themselves."""

from __future__ import annotations

from florence2.tasks.table import TASKS

_CALLS: dict[str, tuple[str, ...]] = {
    "infer": (
        "florence2 infer photo.jpg -m florence-2-base -t caption",
        "florence2 infer photos/ -m florence-2-base -t od -t ocr-with-region --draw out",
        "florence2 infer photo.jpg -m florence-2-base -t dense-region-caption --stream",
        "florence2 infer photo.jpg -m florence-2-base -t open-vocabulary-detection --text 'a red car'",
        "florence2 infer page.png -m florence-2-base -t region-to-ocr --region 20,20,320,120 --json",
        "florence2 infer --list names.txt -m florence-2-base -t caption -t od --json",
    ),
    "label": (
        "florence2 label photos/ -m florence-2-base -t od -t caption -f coco -f jsonl -o labels",
        "florence2 label photos/ -m florence-2-base --classes 'car, traffic light' --min-score 0.3 -f yolo -o labels",
        "florence2 label @list.csv -m florence-2-base --phrases-from detailed-caption -o labels --shard 3/16",
        "florence2 label photos/ -m florence-2-base --engine http://localhost:9001 -t ocr-with-region -o labels",
        "florence2 label labels -f voc",
    ),
    "models": ("florence2 models", "florence2 models -v", "florence2 models --json"),
    "pull": ("florence2 pull florence-2-base", "florence2 pull microsoft/Florence-2-large-ft@main"),
    "serve": (
        "florence2 serve -m florence-2-base",
        "florence2 serve -m florence-2-base --check",
        "florence2 serve -m cats=runs/cats/adapter --host 0.0.0.0 --api-keys-file keys.txt",
    ),
    "bench serve": (
        "florence2 bench serve http://localhost:9001 --rate 20 --duration 60s --target 2s",
        "florence2 bench serve http://localhost:9001 photos/ --concurrency 16 --mix '<OD>=2,<OCR>=1' --stream",
        "florence2 bench serve http://localhost:9001 --rate 1,2,4,8,16 --json result.json --plot result.png",
        "florence2 bench serve http://localhost:8000/v1 --prompt 'Describe the picture.' --rate 2",
    ),
    "keys": (
        "florence2 keys create team-a --rate 60/minute --quota 10000 --expires 90d",
        "florence2 keys create ops --role manage --role metrics",
        "florence2 keys list",
        "florence2 keys rotate team-a --grace 1h",
        "florence2 keys revoke team-a",
    ),
    "usage": ("florence2 usage", "florence2 usage --key team-a --since 2026-11-01 --by month", "florence2 usage --csv"),
    "mcp": (
        "florence2 mcp -m florence-2-base --allow ~/Pictures",
        "florence2 mcp -m florence-2-base --allow . --no-urls",
        "florence2 mcp -m florence-2-base --http --port 9002",
        "florence2 mcp -m florence-2-base --api-url http://localhost:9001 --allow .",
    ),
    "cluster serve": (
        "florence2 cluster serve -m florence-2-base --engines 2",
        "florence2 cluster serve --address auto -c cluster.yaml",
        "florence2 cluster serve --address auto -m florence-2-base --engines 1-8 --gpus 1 --api-keys-file keys.txt",
    ),
    "cluster status": ("florence2 cluster status", "florence2 cluster status --address 10.0.0.4:6379 --json"),
    "cluster stop": ("florence2 cluster stop", "florence2 cluster stop --all"),
    "view": ("florence2 view labels", "florence2 view labels --port 0 --no-browser"),
    "train": (
        "florence2 train -m florence-2-base -d cats.jsonl -o runs/cats",
        "florence2 train -m florence-2-base -d coco.json -i pictures -o runs/cats --freeze-vision",
        "florence2 train -m florence-2-base -d cats.jsonl -o runs/cats --resume",
    ),
    "doctor": ("florence2 doctor", "florence2 doctor --quick --json"),
    "evaluate": (
        "florence2 evaluate -m florence-2-base -d cats/test.jsonl",
        "florence2 evaluate -m florence-2-base -a runs/cats/adapter -d cats/test.jsonl -o runs/cats",
    ),
}

# The sign keeps the lines as they are.
EXAMPLES = {name: "\b\nExamples:\n" + "\n".join(f"  {call}" for call in calls) for name, calls in _CALLS.items()}


def _task_list() -> str:
    """The tasks by the names that ``--task`` takes, with what each needs and gives."""
    rows = [("Tasks", "need", "answer with")]
    rows += [(f"  {task.name}", f"--{task.needs}" if task.needs else "", task.kind.replace("_", " ")) for task in TASKS.values()]
    return "\b\n" + "\n".join(f"{name:<36}{need:<10}{answer}".rstrip() for name, need, answer in rows)


_CLASSES = '--text "car<and>dog" asks for both classes in one question; --text car --text dog is a question for each.'
EXAMPLES["infer"] = "\n\n".join((EXAMPLES["infer"], _task_list(), _CLASSES))
