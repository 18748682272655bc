"""The recipe of ``florence-2-demo``: its dimensions, its curriculum and the run that trains it.

``python -m florence2.training.demo --folder runs/demo`` trains, or goes on training, and writes the finished checkpoint
folder. The weights that ship with the package were made in the four ``RUNS``, each but the first with ``--start`` from the one before
(their card says how). Everything that the recipe decides stands here as a constant.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from florence2.model import Florence2, Florence2Config, TextConfig, VisionConfig
from florence2.outputs import new_folder
from florence2.scenes.world import IMAGE_SIZE, WORDS, world_options
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.demo.auxiliary_loss import GridLoss
from florence2.training.demo.batches import MENU, Batch, SceneBatches, Stage
from florence2.training.demo.initialisation import initialise
from florence2.training.demo.tokenizer import build_tokenizer
from florence2.training.demo.trainer import Trainer, TrainingOptions
from florence2.weights.checkpoint import read_checkpoint
from florence2.weights.defaults import GenerationDefaults, ImageSettings
from florence2.weights.load import load_model
from florence2.weights.save import save_native

BATCH_IMAGES = 32
SEED = 2311

STAGES = (
    Stage(10_000, world_options((1, 1), (1, 1), 0.16)),
    Stage(24_000, world_options((1, 2), (1, 1), 0.13)),
    Stage(66_400, world_options((1, 3), (1, 3), 0.12)),
    Stage(2**62, world_options((1, 8), (1, 3), 0.05)),
)


@dataclass(frozen=True)
class Run:
    """What differs from run to run.

    Attributes:
        stages: the curriculum.
        menu: the questions to a picture.
        learning_rate: on its plateau.
        location_spread: of the targets of location tokens at the start, in bins.
        has_auxiliary_loss: True where the tower has a loss of its own; the heads for it begin at random.
    """

    stages: tuple[Stage, ...] = STAGES[-1:]
    menu: tuple[dict[str, float], ...] = MENU
    learning_rate: float = 1e-3
    location_spread: float = 3.0
    has_auxiliary_loss: bool = True


_REGION_ROW = {"<REGION_TO_CATEGORY>": 0.5, "<REGION_TO_DESCRIPTION>": 0.5}
RUNS = {
    "first": Run(STAGES, location_spread=6.0),
    "second": Run(),
    # What was new in the answers, the region behind its name, is asked for four times as often.
    "regions": Run(menu=(*MENU, *(_REGION_ROW,) * 3), learning_rate=8e-4, location_spread=0.6, has_auxiliary_loss=False),
    # What the run before it had lost most of, captions, is asked for twice as often.
    "captions": Run(menu=(*MENU, _REGION_ROW, {"<CAPTION>": 1.0}), learning_rate=3e-4, location_spread=0.6, has_auxiliary_loss=False),
}


def demo_config(tokenizer: Tokenizer) -> Florence2Config:
    """The demo's dimensions; the vocabulary is the tokenizer's."""
    heads = (1, 2, 4, 8)
    vision = VisionConfig(
        embed_dim=(32, 64, 128, 256),
        depths=(1, 1, 3, 1),
        num_heads=heads,
        num_groups=heads,
        window_size=IMAGE_SIZE // 32,
        projection_dim=192,
        max_position_embeddings=12,
        max_temporal_embeddings=1,
    )
    text = TextConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=192,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        max_position_embeddings=512,
    )
    return Florence2Config(vision, text, tokenizer.image_token_id)


def train_demo(
    folder: Path,
    num_images: int,
    device: str = "cpu",
    is_mixed: bool = False,
    num_workers: int = 1,
    name: str = "first",
    start: Path | None = None,
) -> Trainer:
    """Train or go on training in ``folder`` until ``num_images`` pictures were seen.

    Args:
        folder: state and log.
        num_images: pictures to see in all.
        device: where to train.
        is_mixed: products in bfloat16.
        num_workers: processes that draw scenes.
        name: which of the ``RUNS``.
        start: an earlier demo's checkpoint to begin from. None: random weights.
    """
    build_tokenizer(folder / "tokenizer")
    tokenizer = Tokenizer.load(folder / "tokenizer")
    first_location_id = tokenizer.encode("<loc_0>")[1]
    model = Florence2(demo_config(tokenizer))
    initialise(model, first_location_id, SEED)
    if start is not None:
        _begin_from(model, start)
    run = RUNS[name]
    options = TrainingOptions(
        num_images,
        first_location_id,
        is_mixed=is_mixed,
        decay=0.6,
        learning_rate=run.learning_rate,
        location_spread=run.location_spread,
    )
    auxiliary_loss = GridLoss(model.config.vision.embed_dim[-2:], len(WORDS)) if run.has_auxiliary_loss else None
    trainer = Trainer(model, options, folder, device, auxiliary_loss)
    seed = SEED + list(RUNS).index(name)
    dataset = SceneBatches(str(folder / "tokenizer"), IMAGE_SIZE, BATCH_IMAGES, seed, run.stages, run.menu)
    trainer.run(_batches(dataset, trainer.progress.step, num_workers))
    return trainer


def _begin_from(model: Florence2, folder: Path) -> None:
    """Take over the weights of an earlier demo, and its image positions spread over this one's rows and columns."""
    checkpoint = read_checkpoint(folder)
    state = load_model(checkpoint).state_dict()
    earlier, now = checkpoint.image.height // 32, IMAGE_SIZE // 32
    for name in ("row_embeddings", "column_embeddings"):
        table = state[f"multi_modal_projector.image_position_embed.{name}.weight"]
        spread = F.interpolate(table[:earlier].T.unsqueeze(0), size=now, mode="linear").squeeze(0).T
        state[f"multi_modal_projector.image_position_embed.{name}.weight"] = torch.cat([spread, table[now:]])
    model.load_state_dict(state)


def export(trainer: Trainer, folder: Path) -> None:
    """Write the averaged weights of a run as a checkpoint folder in the native layout, float16, with its tokenizer."""
    trainer.model.load_state_dict(trainer.average)
    # Captions say ", a red circle, a red star": a rule against repeated runs of tokens would spoil them.
    generation = GenerationDefaults(no_repeat_ngram_size=0)
    save_native(trainer.model, folder, image=ImageSettings(width=IMAGE_SIZE, height=IMAGE_SIZE), generation=generation)
    build_tokenizer(folder)


def _batches(dataset: SceneBatches, first: int, num_workers: int) -> Iterator[Batch]:
    numbers = range(first, len(dataset))
    return iter(DataLoader(dataset, batch_size=None, sampler=numbers, num_workers=num_workers, prefetch_factor=4 if num_workers else None))


def main() -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(description="Train florence-2-demo.")
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"), help="where state and log go")
    parser.add_argument("--images", type=int, default=140_000, help="pictures to see in all")
    parser.add_argument("--start", type=Path, help="folder of an earlier demo's checkpoint to begin from")
    parser.add_argument("--run", choices=RUNS, default="first", help="which of the recipe's runs")
    parser.add_argument("--export", type=Path, default=Path("runs/demo/checkpoint"), help="where the finished checkpoint goes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mixed", action="store_true", help="bfloat16 products: for processors with AVX512-BF16 or AMX, and GPUs")
    parser.add_argument("--threads", type=int, default=2, help="processor threads for the arithmetic")
    arguments = parser.parse_args()
    if (arguments.run != "first") != (arguments.start is not None):
        parser.error("every run but the first begins from a checkpoint: --start, and the first from nothing")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    trainer = train_demo(arguments.folder, arguments.images, arguments.device, arguments.mixed, name=arguments.run, start=arguments.start)
    folder = new_folder(arguments.export)  # never over an earlier one
    export(trainer, folder)
    print(folder)
