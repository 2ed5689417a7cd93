"""Label correction in the Trainer of Hugging Face transformers: one subclass, and the corrector."""

import tempfile

import torch
from proto_trainer import LabelCorrector
from proto_trainer.integrations.huggingface import SelfLearningTrainer
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import ResNetConfig, ResNetForImageClassification, TrainingArguments


class Digits(Dataset):
    """Items as the Trainer likes them; a data set of the library `datasets` will do as well."""

    def __init__(self, images, labels) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i):
        return {"pixel_values": self.images[i], "labels": self.labels[i]}


def main(epochs: int = 8, start_epoch: int = 3) -> float:
    """Train on digits of which 40 % carry a wrong label; returns the accuracy of the corrected labels."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16 - 0.3  # [N, 1, 8, 8]
    truth = torch.tensor(digits.target)
    wrong = torch.rand(len(truth)) < 0.4
    given = torch.where(wrong, (truth + torch.randint(1, 10, truth.shape)) % 10, truth)

    config = ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic", num_labels=10
    )
    corrector = LabelCorrector(num_classes=10, start_epoch=start_epoch)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=2e-3,
            report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = SelfLearningTrainer(
            ResNetForImageClassification(config), arguments, train_dataset=Digits(images, given), corrector=corrector
        )
        trainer.train()
    accuracy = (corrector.targets(torch.arange(len(truth))).cpu() == truth).float().mean().item()
    print(f"label accuracy: given {(given == truth).float().mean():.3f}, corrected {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
