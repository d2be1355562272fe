"""The rules of the YouTube-VIS evaluation, written down as plain loops: an oracle for tests.

Nothing is shared with `msr_d2.evaluation` or `pycocotools.cocoeval`. Only the last step, the mean
of a list, is numpy's, whose order of summation is part of the official numbers.
"""

import bisect

import numpy as np
import pycocotools.mask as mask_util

AREAS = [(0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10)]
THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0.0, 1.0, 101).tolist()


def official_numbers(gt, results, max_dets=(1, 10, 100)):
    """AP, AP50, AP75, APs, APm, APl, AR at three limits, ARs, ARm, ARl in [0, 1]; -1: undefined."""
    curves = {}
    for area in range(len(AREAS)):
        for limit in range(len(max_dets)):
            curves[area, limit] = _curves(gt, results, AREAS[area], max_dets[limit], max_dets[-1])
    last = len(max_dets) - 1
    numbers = [_mean_precision(curves[0, last], x) for x in (range(10), [0], [5])]
    numbers += [_mean_precision(curves[area, last], range(10)) for area in (1, 2, 3)]
    numbers += [_mean_recall(curves[0, limit]) for limit in range(len(max_dets))]
    numbers += [_mean_recall(curves[area, last]) for area in (1, 2, 3)]
    return numbers


def track_iou(detected, true):
    """Sum of intersections over sum of unions, pixel by pixel; 0 if the union is empty."""
    intersection = union = 0
    for d, g in zip(detected, true):
        if d is not None and g is not None:
            d, g = mask_util.decode(d).astype(bool), mask_util.decode(g).astype(bool)
            intersection += int((d & g).sum())
            union += int((d | g).sum())
        elif d is not None or g is not None:
            union += int(mask_util.area(d or g))
    return intersection / union if union else 0.0


def _curves(gt, results, area_range, limit, largest_limit):
    """For each category with an object that counts: precisions [T][R] and recalls [T]."""
    videos = sorted(x["id"] for x in gt["videos"])
    curves = []
    for category in sorted(x["id"] for x in gt["categories"]):
        wanted, fates = 0, []
        for video in videos:
            own = [_own(x, video, category) for x in (gt["annotations"], results)]
            count, matched = _match(*own, area_range, limit, largest_limit)
            wanted += count
            fates += matched
        if wanted:
            curves.append([_curve(fates, t, wanted) for t in range(len(THRESHOLDS))])
    return curves


def _own(entries, video, category):
    return [x for x in entries if (x["video_id"], x["category_id"]) == (video, category)]


def _match(truths, detections, area_range, limit, largest_limit):
    """How many truths count, and for each detection (score, [fate at each threshold]).

    A fate is True (right), False (wrong) or None (does not count).
    """
    detections = sorted(detections, key=lambda x: -x["score"])[:largest_limit]
    ignored = [bool(x["iscrowd"]) or _outside(_file_area(x), area_range) for x in truths]
    # Those that count come first, otherwise in the order of the file.
    order = sorted(range(len(truths)), key=lambda i: ignored[i])
    truths, ignored = [truths[i] for i in order], [ignored[i] for i in order]
    ious = [[track_iou(d["segmentations"], g["segmentations"]) for g in truths] for d in detections]
    fates = [[None] * len(THRESHOLDS) for _ in detections]
    for t, threshold in enumerate(THRESHOLDS):
        taken = [False] * len(truths)
        for d, detection in enumerate(detections):
            best = _best_truth(ious[d], threshold, truths, ignored, taken)
            if best is not None:
                taken[best] = True
                fates[d][t] = None if ignored[best] else True
            else:
                outside = _outside(_measured_area(detection), area_range)
                fates[d][t] = None if outside else False
    found = [(x["score"], fate) for x, fate in zip(detections, fates)]
    return ignored.count(False), found[:limit]


def _best_truth(ious, threshold, truths, ignored, taken):
    """The last of the best free truths; one that counts is never given up for an ignored one."""
    best, least = None, min(threshold, 1 - 1e-10)
    for g, truth in enumerate(truths):
        if taken[g] and not truth["iscrowd"]:
            continue
        if best is not None and not ignored[best] and ignored[g]:
            break
        if ious[g] >= least:
            best, least = g, ious[g]
    return best


def _curve(fates, threshold, wanted):
    """Interpolated precision at the 101 recalls, and the recall of all detections."""
    right = wrong = 0
    precisions, recalls = [], []
    for _, fate in sorted(fates, key=lambda x: -x[0]):
        right += fate[threshold] is True
        wrong += fate[threshold] is False
        precisions.append(right / (wrong + right + np.spacing(1)))
        recalls.append(right / wanted)
    for i in range(len(precisions) - 1, 0, -1):
        precisions[i - 1] = max(precisions[i - 1], precisions[i])
    reached = [bisect.bisect_left(recalls, x) for x in RECALLS]
    sampled = [precisions[i] if i < len(precisions) else 0.0 for i in reached]
    return sampled, (recalls[-1] if recalls else 0.0)


def _mean_precision(curves, thresholds):
    values = [c[t][0][r] for t in thresholds for r in range(len(RECALLS)) for c in curves]
    return float(np.mean(values)) if values else -1


def _mean_recall(curves):
    values = [c[t][1] for t in range(len(THRESHOLDS)) for c in curves]
    return float(np.mean(values)) if values else -1


def _outside(area, area_range):
    return area < area_range[0] or area > area_range[1]


def _file_area(truth):
    present = [x for x in truth["areas"] if x]
    return sum(present) / len(present) if present else 0


def _measured_area(detection):
    areas = [int(mask_util.area(x)) for x in detection["segmentations"] if x is not None]
    areas = [x for x in areas if x]
    return sum(areas) / len(areas) if areas else 0
