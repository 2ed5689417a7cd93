"""Label correction in Lightning: a callback, a loss module, and the index in each batch."""

import lightning.pytorch as pl
import torch
from proto_trainer import LabelCorrector
from proto_trainer.integrations.lightning import LabelCorrectionCallback, SelfLearningLoss
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(pl.LightningModule):
    """`features` gives the corrector what the head sees, [B, D]."""

    def __init__(self, corrector: LabelCorrector) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64)),
        )
        self.head = nn.Linear(64, 10)
        self.loss = SelfLearningLoss(corrector)

    def features(self, images):
        return self.body(images).mean(dim=(2, 3))  # [B, 64]

    def training_step(self, batch, _):
        images, labels, index = batch
        return self.loss(self.head(self.features(images)), labels, index)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(epochs: int = 15, start_epoch: int = 5) -> float:
    """Train on digits of which 40 % carry a wrong label; returns the accuracy of the corrected labels."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # [N, 1, 8, 8]
    truth = torch.tensor(digits.target)
    wrong = torch.rand(len(truth)) < 0.4
    given = torch.where(wrong, (truth + torch.randint(1, 10, truth.shape)) % 10, truth)

    dataset = TensorDataset(images, given, torch.arange(len(given)))  # (image, given label, index)
    corrector = LabelCorrector(num_classes=10, start_epoch=start_epoch)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="auto", devices=1, callbacks=[LabelCorrectionCallback(corrector)],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(corrector), DataLoader(dataset, batch_size=32, shuffle=True))
    accuracy = (corrector.targets(torch.arange(len(truth))).cpu() == truth).float().mean().item()
    print(f"label accuracy: given {(given == truth).float().mean():.3f}, corrected {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
