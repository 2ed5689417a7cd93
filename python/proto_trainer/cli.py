"""``proto-train``: train on a data set with wrong labels, and write down which labels are suspect."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from .config import SELECTORS, TrainConfig, make_config
from .data import DATASETS, NOISE_KINDS, NoiseSpec
from .epoch_log import Row
from .errors import CheckpointError, ConfigError, TrainingDiverged
from .methods import METHODS
from .models import MODELS
from .train import train


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status (0 done, 1 failed, 2 bad arguments, 130 interrupted)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = _parser().parse_args(argv)
    try:
        config = _config(args)
        result = train(config, resume=args.resume, download=args.download, on_epoch=_print_row)
    except (ConfigError, CheckpointError) as error:
        print(f"proto-train: error: {error}", file=sys.stderr)
        return 2
    except (TrainingDiverged, OSError) as error:
        print(f"proto-train: stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"proto-train: interrupted; --resume --out {args.out} goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    best = max(row["test_accuracy"] for row in result.rows)
    last = result.rows[-1]["test_accuracy"]
    print(f"test accuracy {last:.4f} (best epoch {best:.4f}); results in {config.out}")
    return 0


def _print_row(row: Row) -> None:
    labels = "" if row["label_accuracy"] is None else f"  label accuracy {row['label_accuracy']:.4f}"
    seconds = {
        name.removesuffix("_seconds"): value for name, value in row.items() if name.endswith("_seconds") and value
    }
    parts = (f"{part} {seconds[part]:.1f} s" for part in ("extract", "select", "score") if part in seconds)
    phase = ", ".join(parts)
    print(
        f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  train {row['train_accuracy']:.4f}  "
        f"test {row['test_accuracy']:.4f}  changed {row['label_changed']:.4f}{labels}  {sum(seconds.values()):.1f} s"
        f"{f' (correction: {phase})' if phase else ''}",
        flush=True,
    )


def _config(args: argparse.Namespace) -> TrainConfig:
    settings = vars(args).copy()
    for name in ("resume", "download"):
        del settings[name]
    settings["noise"] = NoiseSpec.parse(args.noise)
    return make_config(settings.pop("data"), settings.pop("out"), **settings)


def _samples(text: str) -> int | str:
    return text if text == "all" else int(text)


_samples.__name__ = "number or all"  # argparse puts it into its message


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proto-train",
        description="Train an image classifier on labels that are partly wrong, correcting them on the way. "
        "Writes epochs.csv, corrected.parquet, tensorboard/ and checkpoints/ to --out.",
        epilog="Settings that are not given come from the recipe of the data set. Epochs are counted from 0.",
    )
    add = parser.add_argument
    add("--data", required=True, choices=DATASETS, help="data set")
    add("--root", type=Path, metavar="DIR", help="where its files are (all but digits)")
    add("--download", action="store_true", help="fetch the files when missing (fashion-mnist)")
    add("--method", default="smp", choices=METHODS, help="smp: self-learning (default); see docs/training.md")
    noise_kinds = f"{', '.join(NOISE_KINDS)}; or none"
    add("--noise", default="none", metavar="KIND:RATE", help=f"add label noise: {noise_kinds} (default)")
    add("--images", type=int, metavar="N", help="train on a part: so many images, the same share of every class")
    add("--epochs", type=int, metavar="E")
    add("--start-epoch", type=int, metavar="S", help="first epoch that is not plain cross-entropy (default: E / 3)")
    add("--seed", type=int, default=0, metavar="N")
    add("--out", type=Path, required=True, metavar="DIR", help="where to write; must not hold a run yet")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add("--model", choices=MODELS)
    add("--batch-size", type=int, metavar="N")
    add("--lr", type=float, help="learning rate; divided by 10 after each third of the epochs")
    add("--weight-decay", type=float)
    add("--alpha", type=float, help="weight of the corrected labels in the loss (default 0.5)")
    add("--prototypes-per-class", type=int, metavar="N", help="(default 8)")
    add("--samples-per-class", type=_samples, metavar="N|all", help="images to pick them from (default 1280)")
    add("--selector", choices=SELECTORS, help="how smp picks prototypes (default density-peaks)")
    add("--min-margin", type=float, metavar="COSINE", help="keep a label that leads by less (smp; default 0)")
    add("--correct-every", type=int, metavar="K", help="epochs from one correction to the next (smp; default 1)")
    add("--prior-weight", type=float, help="of joint: weight of the class shares in the loss (default 1.2)")
    add("--entropy-weight", type=float, help="of joint: weight of the entropy in the loss (default 0.8)")
    add(
        "--verified",
        metavar="FILE|dataset",
        help="labels looked at: CSV index,correct or path,correct, perhaps label (smp, forward, cleannet)",
    )
    add(
        "--clean",
        metavar="FILE|dataset",
        help="fine-tune at the end on right labels: CSV index,label or path,label",
    )
    add("--clean-epochs", type=int, metavar="E", help="epochs of fine-tuning (default: a third of --epochs)")
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="side of the images of a folder, clothing1m or food101n (default 224)",
    )
    add("--workers", type=int, metavar="N", help="processes that load images")
    add("--weights", type=Path, metavar="FILE", help="a .safetensors file: weights of a ResNet to begin with")
    add("--amp", action="store_true", help="compute in bfloat16 where that is safe")
    add("--compile", action="store_true", help="compile the network (torch.compile)")
    add("--device", help="auto, cpu, cuda, cuda:1, ... (default auto)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
