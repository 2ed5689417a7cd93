"""LabelCorrector in a plain training loop: your own data set, your own network, four lines of label correction."""

import torch
from proto_trainer import LabelCorrector
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Any network will do that can also give the feature [B, D] in front of its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64)),  # signed: cosines tell more than behind a ReLU
        )
        self.head = nn.Linear(64, 10)

    def features(self, images):
        return self.body(images).mean(dim=(2, 3))  # [B, 64]

    def forward(self, images):
        return self.head(self.features(images))  # [B, 10]


def main(epochs: int = 15, start_epoch: int = 5) -> float:
    """Train on digits of which 40 % carry a wrong label; returns the accuracy of the corrected labels."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # [N, 1, 8, 8]
    truth = torch.tensor(digits.target)
    wrong = torch.rand(len(truth)) < 0.4
    given = torch.where(wrong, (truth + torch.randint(1, 10, truth.shape)) % 10, truth)

    dataset = TensorDataset(images, given, torch.arange(len(given)))  # (image, given label, index)
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    corrector = LabelCorrector(num_classes=10, start_epoch=start_epoch)
    for epoch in range(epochs):
        corrector.update(model, dataset, epoch)  # from start_epoch on: extract features, pick prototypes, relabel
        for batch, labels, index in loader:
            loss = corrector.loss(model(batch), labels, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    accuracy = (corrector.targets(torch.arange(len(truth))) == truth).float().mean().item()
    print(f"label accuracy: given {(given == truth).float().mean():.3f}, corrected {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
