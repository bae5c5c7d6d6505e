"""The task of quickstart.py in plain PyTorch, without striate: the same digits, net, optimizer and schedule.

    python examples/plain_pytorch.py

It is here to compare with. The split is drawn by scikit-learn, so other pictures are in it than in striate's, and the
accuracy differs a little. Left out: the confidence interval, numbers for each class, pictures, checkpoints, logs.
"""

import copy

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, BATCH, LEARNING_RATE = 20, 64, 0.01
torch.manual_seed(0)

digits = load_digits()
images, labels = torch.tensor(digits.images / 16).float()[:, None], torch.tensor(digits.target)  # (1797, 1, 8, 8)

rest, test = train_test_split(range(len(labels)), test_size=0.15, stratify=labels, random_state=0)
train, validation = train_test_split(rest, test_size=0.1, stratify=labels[rest], random_state=0)
images = (images - images[train].mean()) / images[train].std()
loader = DataLoader(TensorDataset(images[train], labels[train]), batch_size=BATCH, shuffle=True)

net = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # (B, 8, 4, 4)
    nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # (B, 16, 2, 2)
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),  # (B, 32, 2, 2)
    nn.Flatten(), nn.Linear(32 * 2 * 2, 10),  # (B, 10)
)  # fmt: skip
loss_function = nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, LEARNING_RATE, total_steps=EPOCHS * len(loader), cycle_momentum=False
)


def accuracy(indices: list[int]) -> float:
    """Return the share of these pictures that the net answers rightly."""
    net.eval()
    with torch.no_grad():
        return (net(images[indices]).argmax(1) == labels[indices]).float().mean().item()


best_accuracy, best_weights = -1.0, net.state_dict()
for epoch in range(EPOCHS):
    net.train()
    total = 0.0
    for batch_images, batch_labels in loader:
        loss = loss_function(net(batch_images), batch_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(batch_labels)
    validated = accuracy(validation)
    print(f"epoch {epoch + 1:2}: loss {total / len(train):.4f}, validation {validated:.2%}")
    if validated > best_accuracy:
        best_accuracy, best_weights = validated, copy.deepcopy(net.state_dict())

net.load_state_dict(best_weights)
print(f"test accuracy {accuracy(test):.2%} of {len(test)} pictures")
