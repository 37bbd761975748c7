"""The detection loss: boxes, objectness, classes."""

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from utils.metrics import aspect_angle, bbox_iou

# The cells beside a centre that answer for it too: what is taken off the centre to get there.
OFFSETS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))  # own, left, above, right, below


def smooth_BCE(eps=0.1):
    """Targets of the right class and of the others, for label smoothing eps."""
    return 1.0 - 0.5 * eps, 0.5 * eps


class FocalLoss(nn.Module):
    """Binary cross entropy that cares less about what is right already."""

    def __init__(self, pos_weight, gamma=1.5, alpha=0.25):
        super().__init__()
        self.bce = nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction="none")
        self.gamma, self.alpha = gamma, alpha

    def forward(self, pred, true):
        """Mean over all elements."""
        prob = pred.sigmoid()
        miss = true * (1 - prob) + (1 - true) * prob
        # the slope of a power below 1 is infinite at 0
        live = miss > torch.finfo(miss.dtype).tiny
        modulating = torch.where(live, torch.where(live, miss, 1.0) ** self.gamma, 0.0)
        share = true * self.alpha + (1 - true) * (1 - self.alpha)
        return (self.bce(pred, true) * share * modulating).mean()


class ComputeLoss:
    """Called with predictions and targets: the total, and box, objectness and class loss to log."""

    sort_obj_iou = False  # where rows share a cell the last wins; with True the largest overlap

    def __init__(self, model, autobalance=False):
        self.hyp = model.hyp  # trainers set it on the wrapper
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        head = model.model[-1]
        self.device = next(model.parameters()).device
        self.na, self.nc, self.nl = head.na, head.nc, head.nl
        self.anchors = head.anchors.to(self.device)  # in cells

        self.cp, self.cn = smooth_BCE(self.hyp.get("label_smoothing", 0.0))
        self.BCEcls = self.criterion(self.hyp["cls_pw"])
        self.BCEobj = self.criterion(self.hyp["obj_pw"])

        self.gr = 1.0
        self.balance = [4.0, 1.0, 0.4] if self.nl == 3 else [4.0, 1.0, 0.25, 0.06, 0.02]  # P3 to P7
        self.autobalance = autobalance
        self.ssi = head.stride.tolist().index(16) if autobalance else 0  # the layer that keeps weight 1

    def criterion(self, pos_weight):
        """BCE, or focal loss where it is switched on."""
        weight = torch.tensor([pos_weight], device=self.device)
        gamma = self.hyp["fl_gamma"]
        return FocalLoss(weight, gamma) if gamma > 0 else nn.BCEWithLogitsLoss(pos_weight=weight)

    def __call__(self, p, targets):
        """Total (1,) with gradient, and items (3,): box, objectness, class.

        p: a (B, na, H, W, 5 + nc) tensor a layer; targets: (N, 6), image, class, x, y, w, h as fractions.
        """
        with torch.autocast(self.device.type, enabled=False):  # overlaps need float32
            lbox, lobj, lcls = self.terms(p, targets)
        lbox = lbox * self.hyp["box"]
        lobj = lobj * self.hyp["obj"]
        lcls = lcls * self.hyp["cls"]
        bs = p[0].shape[0]
        return (lbox + lobj + lcls) * bs, torch.cat((lbox, lobj, lcls)).detach()

    def terms(self, p, targets):
        """The three losses before their gains, each (1,), summed over layers."""
        lbox, lobj, lcls = (torch.zeros(1, device=self.device) for _ in range(3))
        tcls, tbox, indices, anch = self.build_targets(p, targets)
        seen = []
        for i, pi in enumerate(p):
            pi = pi.to(torch.promote_types(pi.dtype, torch.float32))  # noqa: PLW2901
            tobj = torch.zeros(pi.shape[:4], dtype=pi.dtype, device=self.device)
            if len(tcls[i]):
                ps = pi[indices[i]]  # the predictions of the rows
                pxy = ps[:, :2].sigmoid() * 2 - 0.5
                pwh = (ps[:, 2:4].sigmoid() * 2) ** 2 * anch[i]
                pbox, angle = torch.cat((pxy, pwh), dim=1), aspect_angle(ps[:, :4], anch[i])
                iou = bbox_iou(pbox, tbox[i], CIoU=True, angle1=angle)
                lbox = lbox + (1.0 - iou).mean()

                quality = iou.detach().clamp(min=0)
                tobj = self.fill(tobj, indices[i], (1.0 - self.gr) + self.gr * quality)

                if self.nc > 1:
                    true = torch.full_like(ps[:, 5:], self.cn).scatter(1, tcls[i][:, None], self.cp)
                    lcls = lcls + self.BCEcls(ps[:, 5:], true)
            obji = self.BCEobj(pi[..., 4], tobj)
            lobj = lobj + obji * self.balance[i]
            seen.append(obji.detach())
        if self.autobalance:
            self.rebalance(seen)
        return lbox, lobj, lcls

    def fill(self, tobj, indices, values):
        """Write the rows' values into their cells.

        Of several rows in one cell the last wins. Writes that meet have no order on a GPU, so the last is looked for.
        """
        if self.sort_obj_iou:
            order = values.argsort(stable=True)
            indices, values = tuple(x[order] for x in indices), values[order]
        b, a, gj, gi = indices
        _, na, ny, nx = tobj.shape
        cell = ((b * na + a) * ny + gj) * nx + gi
        number = torch.arange(len(cell), device=self.device)
        last = torch.zeros(tobj.numel(), dtype=torch.long, device=self.device).scatter_reduce(0, cell, number, "amax")
        return tobj.flatten().scatter(0, cell, values[last[cell]]).view(tobj.shape)

    def rebalance(self, seen):
        """Let the layers' weights drift to where all layers weigh the same; a layer without loss counts as 1e-6."""
        for i, obji in enumerate(seen):
            self.balance[i] = self.balance[i] * 0.9999 + 0.0001 / max(obji.item(), 1e-6)
        self.balance = [x / self.balance[self.ssi] for x in self.balance]

    def build_targets(self, p, targets):
        """Rows of each layer: class, box relative to the cell, (image, anchor, gj, gi), anchor's sides; by image."""
        tcls, tbox, indices, anch = [], [], [], []
        targets = targets.float()
        off = torch.tensor(OFFSETS, device=self.device)
        for i, pi in enumerate(p):
            ny, nx = pi.shape[2:4]
            gain = torch.tensor((nx, ny), device=self.device)
            gxywh = targets[:, 2:] * gain.repeat(2)

            # which anchor suits which target
            r = gxywh[None, :, 2:] / self.anchors[i][:, None]
            a, t = (torch.maximum(r, 1 / r).amax(2) < self.hyp["anchor_t"]).nonzero(as_tuple=True)

            # the own cell, and those beside it that the centre is near to
            gxy = gxywh[t, :2]
            inv = gain - gxy
            near = (gxy % 1 < 0.5) & (gxy > 1)
            far = (inv % 1 < 0.5) & (inv > 1)
            k, j = torch.cat((torch.ones_like(near[:, :1]), near, far), dim=1).T.nonzero(as_tuple=True)
            a, t = a[j], t[j]

            # by image, so that what wants the rows of one image takes a slice; stable, so the last row stays the last
            b = targets[t, 0].long()
            order = b.argsort(stable=True)
            a, b, k, t = a[order], b[order], k[order], t[order]

            gxy, gwh = gxywh[t].split(2, dim=1)
            gi, gj = (gxy - off[k]).long().unbind(1)
            gi, gj = gi.clamp(0, nx - 1), gj.clamp(0, ny - 1)
            tcls.append(targets[t, 1].long())
            tbox.append(torch.cat((gxy - torch.stack((gi, gj), dim=1), gwh), dim=1))
            indices.append((b, a, gj, gi))
            anch.append(self.anchors[i][a])
        return tcls, tbox, indices, anch
