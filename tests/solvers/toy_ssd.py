"""A toy SSD: drawn shapes with their annotations in VOC's form, and one prototxt to train, test and deploy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pycaffe.data.convert_annoset import AnnotationFormat, convert_annoset

CLASSES = ("disc", "square", "triangle")
EXTENT = 64

LABEL_MAP = 'item { name: "background" label: 0 }\n' + "".join(
    f'item {{ name: "{name}" label: {label} display_name: "{name}" }}\n' for label, name in enumerate(CLASSES, 1)
)


def draw_shapes(generator: np.random.Generator) -> tuple[np.ndarray, list[tuple[str, tuple[int, int, int, int]]]]:
    """An image of noise with one or two shapes that do not overlap; each one's class, and its corners in pixels."""
    image = generator.integers(60, 120, (EXTENT, EXTENT, 3)).astype(np.uint8)
    objects: list[tuple[str, tuple[int, int, int, int]]] = []
    for _ in range(int(generator.integers(1, 3))):
        size = int(generator.integers(14, 34))
        x, y = (int(value) for value in generator.integers(0, EXTENT - size, 2))
        if any(
            x < right and left < x + size and y < bottom and top < y + size for _, (left, top, right, bottom) in objects
        ):
            continue
        name = CLASSES[int(generator.integers(3))]
        colour = [int(value) for value in generator.choice([0, 255], 3)]
        if name == "disc":
            cv2.circle(image, (x + size // 2, y + size // 2), size // 2, colour, -1)
        elif name == "square":
            cv2.rectangle(image, (x, y), (x + size - 1, y + size - 1), colour, -1)
        else:
            corners = np.array([[x, y + size - 1], [x + size - 1, y + size - 1], [x + size // 2, y]])
            cv2.fillPoly(image, [corners], colour)
        objects.append((name, (x, y, x + size, y + size)))
    return image, objects


def voc_xml(objects: list[tuple[str, tuple[int, int, int, int]]], size: tuple[int, int] = (EXTENT, EXTENT)) -> str:
    """An annotation file of VOC."""
    found = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    return f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{found}</annotation>"


def write_shapes(folder: Path, name: str, count: int, seed: int) -> None:
    """Draws `count` images, writes their annotations, and makes the database `name` of them."""
    generator = np.random.default_rng(seed)
    lines = []
    for index in range(count):
        image, objects = draw_shapes(generator)
        cv2.imwrite(str(folder / f"{name}{index}.png"), image)
        (folder / f"{name}{index}.xml").write_text(voc_xml(objects), encoding="utf-8")
        lines.append(f"{name}{index}.png {name}{index}.xml\n")
    (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "labelmap.prototxt").write_text(LABEL_MAP, encoding="utf-8")
    annotations = AnnotationFormat("detection", label_map_file=str(folder / "labelmap.prototxt"))
    convert_annoset(f"{folder}/", str(folder / f"{name}.txt"), str(folder / name), annotations)


def _convolution(name: str, bottom: str, outputs: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{ '
        f'num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}\n'
    )


def _stage(index: int, bottom: str, outputs: int) -> str:
    name = f"conv{index}"
    return (
        _convolution(name, bottom, outputs)
        + f'layer {{ name: "relu{index}" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
        + f'layer {{ name: "pool{index}" type: "Pooling" bottom: "{name}" top: "pool{index}" '
        "pooling_param { kernel_size: 2 stride: 2 } }\n"
    )


def _head(name: str, bottom: str, smallest: int, largest: int) -> str:
    text = ""
    for kind, outputs in (("loc", 2 * 4), ("conf", 2 * 4)):
        text += _convolution(f"{name}_{kind}", bottom, outputs)
        text += (
            f'layer {{ name: "{name}_{kind}_perm" type: "Permute" bottom: "{name}_{kind}" top: "{name}_{kind}_perm" '
            "permute_param { order: 0 order: 2 order: 3 order: 1 } }\n"
            f'layer {{ name: "{name}_{kind}_flat" type: "Flatten" bottom: "{name}_{kind}_perm" '
            f'top: "{name}_{kind}_flat" }}\n'
        )
    return text + (
        f'layer {{ name: "{name}_prior" type: "PriorBox" bottom: "{bottom}" bottom: "data" top: "{name}_prior" '
        f"prior_box_param {{ min_size: {smallest} max_size: {largest} variance: 0.1 variance: 0.1 variance: 0.2 "
        "variance: 0.2 } }\n"
    )


def net_text(folder: Path, batch_size: int = 16) -> str:
    """The net: TRAIN, TEST, and with the stage "deploy" TEST with an Input."""

    def data(phase: str, name: str, more: str) -> str:
        return (
            f'layer {{ name: "data" type: "AnnotatedData" top: "data" top: "label" include {{ phase: {phase} '
            f'not_stage: "deploy" }} data_param {{ source: "{folder / name}" backend: LMDB batch_size: {batch_size} }} '
            f"transform_param {{ scale: 0.01 mean_value: 90 resize_param {{ height: {EXTENT} width: {EXTENT} }} {more} "
        )

    sampler = (
        "batch_sampler { max_sample: 1 max_trials: 1 } batch_sampler { sampler { min_scale: 0.6 } sample_constraint { "
        "min_object_coverage: 1 } max_sample: 1 max_trials: 20 } "
    )
    joins = "".join(
        f'layer {{ name: "mbox_{kind}" type: "Concat" bottom: "near_{suffix}" bottom: "far_{suffix}" '
        f'top: "mbox_{kind}" concat_param {{ axis: {axis} }} }}\n'
        for kind, suffix, axis in (("loc", "loc_flat", 1), ("conf", "conf_flat", 1), ("prior", "prior", 2))
    )
    return (
        'name: "toy_ssd"\n'
        + data("TRAIN", "train", f"mirror: true }} annotated_data_param {{ {sampler} }} }}\n")
        + data("TEST", "test", "} }\n")
        + 'layer { name: "data" type: "Input" top: "data" include { phase: TEST stage: "deploy" } '
        f"input_param {{ shape {{ dim: 1 dim: 3 dim: {EXTENT} dim: {EXTENT} }} }} }}\n"
        + _stage(1, "data", 16)
        + _stage(2, "pool1", 24)
        + _stage(3, "pool2", 32)
        + _stage(4, "pool3", 32)
        + _head("near", "pool3", 16, 22)
        + _head("far", "pool4", 26, 34)
        + joins
        + 'layer { name: "loss" type: "MultiBoxLoss" bottom: "mbox_loc" bottom: "mbox_conf" bottom: "mbox_prior" '
        'bottom: "label" top: "loss" include { phase: TRAIN } propagate_down: true propagate_down: true '
        "propagate_down: false propagate_down: false loss_param { normalization: VALID } multibox_loss_param { "
        "num_classes: 4 code_type: CENTER_SIZE neg_pos_ratio: 3 mining_type: MAX_NEGATIVE } }\n"
        'layer { name: "conf" type: "Reshape" bottom: "mbox_conf" top: "conf" include { phase: TEST } '
        "reshape_param { shape { dim: 0 dim: -1 dim: 4 } } }\n"
        'layer { name: "softmax" type: "Softmax" bottom: "conf" top: "softmax" include { phase: TEST } '
        "softmax_param { axis: 2 } }\n"
        'layer { name: "flat" type: "Flatten" bottom: "softmax" top: "flat" include { phase: TEST } }\n'
        'layer { name: "detections" type: "DetectionOutput" bottom: "mbox_loc" bottom: "flat" bottom: "mbox_prior" '
        'top: "detections" include { phase: TEST } detection_output_param { num_classes: 4 code_type: CENTER_SIZE '
        "nms_param { nms_threshold: 0.45 top_k: 100 } keep_top_k: 20 confidence_threshold: 0.05 } }\n"
        'layer { name: "detection_eval" type: "DetectionEvaluate" bottom: "detections" bottom: "label" '
        'top: "detection_eval" include { phase: TEST not_stage: "deploy" } detection_evaluate_param { num_classes: 4 '
        "overlap_threshold: 0.5 } }\n"
    )


def solver_text(folder: Path, iterations: int, tests: int) -> str:
    """Trains with Adam; tests at the end."""
    return (
        f'net: "{folder / "net.prototxt"}" test_iter: {tests} test_interval: {iterations} test_initialization: false '
        f'base_lr: 0.002 lr_policy: "multistep" stepvalue: {iterations * 3 // 4} gamma: 0.2 type: "Adam" momentum: 0.9 '
        f'momentum2: 0.999 max_iter: {iterations} eval_type: "detection" ap_version: "11point" random_seed: 5 '
        f'show_per_class_result: true display: 100 snapshot_prefix: "{folder / "toy"}" snapshot_after_train: true'
    )
