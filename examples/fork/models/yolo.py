"""A detector with three layers, small enough for a laptop."""

import torch
from torch import nn

STRIDES = (8, 16, 32)
ANCHORS = (  # in pixels
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
HYP = {
    "box": 0.05,
    "obj": 0.7,
    "cls": 0.3,
    "cls_pw": 1.0,
    "obj_pw": 1.0,
    "fl_gamma": 0.0,
    "anchor_t": 4.0,
    "label_smoothing": 0.0,
}


class Conv(nn.Sequential):
    """A convolution that halves the sides of its input."""

    def __init__(self, c1, c2):
        super().__init__(nn.Conv2d(c1, c2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c2), nn.SiLU())


class Detect(nn.Module):
    """The head: for each layer, anchor and cell the logits of x, y, w, h, objectness and classes."""

    def __init__(self, nc, channels):
        super().__init__()
        self.nc, self.no = nc, nc + 5
        self.nl, self.na = len(ANCHORS), len(ANCHORS[0])
        self.stride = torch.tensor(STRIDES)
        self.register_buffer("anchors", torch.tensor(ANCHORS) / self.stride.view(-1, 1, 1))  # in cells
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in channels)

    def forward(self, features):
        """(B, na, H, W, no) for each layer."""
        maps = (m(x) for m, x in zip(self.m, features, strict=True))
        return [x.unflatten(1, (self.na, self.no)).permute(0, 1, 3, 4, 2).contiguous() for x in maps]


class Model(nn.Module):
    """Stages of strides 8, 16 and 32, and the head, which is ``model[-1]``."""

    def __init__(self, nc=80, hyp=None, width=16):
        super().__init__()
        self.nc, self.hyp = nc, dict(HYP if hyp is None else hyp)
        c3, c4, c5 = 2 * width, 4 * width, 8 * width
        stem = nn.Sequential(Conv(3, width), Conv(width, width), Conv(width, c3))
        self.model = nn.ModuleList((stem, Conv(c3, c4), Conv(c4, c5), Detect(nc, (c3, c4, c5))))

    def forward(self, x):
        """Raw predictions of each layer, for images (B, 3, H, W)."""
        *stages, head = self.model
        features = []
        for stage in stages:
            x = stage(x)
            features.append(x)
        return head(features)
