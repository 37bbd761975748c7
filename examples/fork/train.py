"""A few steps on random data: `python train.py`."""

import torch

from models.yolo import Model
from utils.loss import ComputeLoss


def main(steps=10, batch=4, nc=3, size=128):
    """Train, and say how it goes."""
    torch.manual_seed(0)
    model = Model(nc)
    compute_loss = ComputeLoss(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(batch, 3, size, size)
    n = 3 * batch
    targets = torch.cat((torch.arange(n)[:, None] % batch, torch.randint(nc, (n, 1)), torch.rand(n, 4) * 0.8 + 0.1), 1)
    for step in range(steps):
        p = model(images)
        loss, items = compute_loss(p, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"{step}: total {loss.item():.4f}, box {items[0]:.4f}, objectness {items[1]:.4f}, class {items[2]:.4f}")

    tcls, _, (b, *_), _ = (layers[0] for layers in compute_loss.build_targets(p, targets))
    for image, classes in enumerate(tcls.split(b.bincount(minlength=batch).tolist())):  # rows come by image
        print(f"image {image}: {len(classes)} rows on layer 0, by class {classes.bincount(minlength=nc).tolist()}")


if __name__ == "__main__":
    main()
