"""Train a net of your own on arrays of your own: the net as one finds it in an article, the arrays as numpy has them.

    python examples/own_net.py

The net needs no registration. Give the class, and striate makes it from the seed; give an instance, and striate starts
from the weights that it has.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import striate


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(32 * 2 * 2, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))  # (B, 1, 8, 8) -> (B, 16, 4, 4)
        x = self.pool(torch.relu(self.conv2(x)))  # -> (B, 32, 2, 2)
        x = x.flatten(1)  # -> (B, 128)
        x = torch.relu(self.fc1(x))  # -> (B, 64)
        return self.fc2(x)  # -> (B, 10): logits, without a softmax


digits = load_digits()
images = digits.images / 16.0  # floats 0–1, shape (1797, 8, 8)
run = striate.train((images, digits.target), model=Net, epochs=10, lr=0.005, schedule="one-cycle")
print(f"test accuracy {run.evaluation['top1']['value']:.2%}")

# A run folder holds weights, never code: to load the run later, give the class again.
predictor = striate.load(run.folder, model=Net)
answer = predictor.predict(images[0])
print(f"the first picture is a {digits.target[0]}: answered {answer.label} with {answer.probability:.2%}")
