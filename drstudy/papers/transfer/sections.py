"""What the report shows of the main study (notebooks 00 to 06)."""

from __future__ import annotations

from drstudy.papers.base import Section
from drstudy.papers.transfer import params

_CUTS = {
    name: text
    for cut in (1, 2, 3, 4)
    for name, text in {
        f"sd_ge{cut}": (
            f"distance to grade ≥ {cut}, SD",
            f"How far the implied prevalence is from the share of grade {cut} or more in the paper's data, in standard deviations (SD) of a random test set. 0 fits.",
        ),
        f"accuracy_ge{cut}": (
            f"implied accuracy, grade ≥ {cut}",
            "The accuracy that the printed sensitivity and specificity imply at this cut.",
        ),
    }.items()
}
"""Columns of the table of the paper's arithmetic, for each cut."""

_NETWORK = ("network", "Network, with the weights that it started from.")

SECTIONS = (
    Section(
        params.BackboneComparison.notebook,
        "Backbones",
        "The networks of the paper's Table 2 and further ones. The paper does not say from which grade on an eye counts as positive, so scores are shown for every cut.",
        (
            (
                "table",
                "table2_display",
                "One row per network and cut, on the test split, with 95 % intervals. The paper's rows are as printed. Higher is better.",
            ),
            (
                "figure",
                "table2_ge2",
                "Scores at grade 2 or more with 95 % intervals. Hollow marks are the paper's numbers, on the assumption that this is its cut.",
            ),
            (
                "table",
                "summary",
                "Agreement with the reference grades, one row per network, with 95 % intervals. For the mean error and NLL, lower is better.",
            ),
            (
                "table",
                "recalls",
                "Recall: the share of the eyes of each grade that are predicted as that grade. Higher is better.",
            ),
            (
                "figure",
                "confusion_matrices",
                "Confusion matrices of the test split: rows are reference grades, columns are predicted grades.",
            ),
            (
                "figure",
                "roc_curves",
                "ROC curves at each cut, with the area under the curve (AUC). The dotted line is chance.",
            ),
            (
                "table",
                "recipe_deviations",
                "Settings in which a training recipe differs from the paper's. The sign = means that it is the same.",
            ),
            (
                "table",
                "paper_arithmetic",
                "The share of positives that each row of the paper's Table 2 implies, and how far it is from the share at each cut.",
            ),
            ("figure", "loss_curves", "Loss during training, as in the paper's figures 1 to 3."),
            (
                "table",
                "seed_spread",
                "Mean and standard deviation over training seeds, for networks that were trained more than once.",
            ),
            (
                "table",
                "oddities_display",
                "Ablation of the paper's unusual choices. One setting is changed at a time. Differences are paired by patient, with 95 % intervals.",
            ),
        ),
        columns={
            "summary/Unnamed: 0": _NETWORK,
            "recalls/Unnamed: 0": _NETWORK,
            "recipe_deviations/Unnamed: 0": ("setting", "Setting of the training recipe."),
            "positive": (
                "counted as positive",
                "The grades that count as disease, and their share of the test images.",
            ),
            "implied": (
                "implied share",
                "Share of positives that the printed sensitivity, specificity and accuracy imply. In brackets: what the rounding of print allows.",
            ),
            "nearest": ("nearest cut", "The cut whose share of positives is nearest to the implied one."),
            **_CUTS,
            "oddity": ("setting", "What is unusual in the paper's recipe."),
            "the paper's": ("the paper's value", ""),
            "with the paper's": ("score with the paper's value", ""),
            "changed": ("score when changed", ""),
        },
        order=10,
    ),
    Section(
        params.Reliability.notebook,
        "Reliability",
        "Tests of the differences between networks, calibration of their probabilities, and the benefit to a clinic that would refer by them.",
        (
            (
                "table",
                "paired_tests",
                "Each network minus DenseNet121, with p-values that take eyes as independent, that resample patients, and that are also adjusted for "
                "the number of networks.",
            ),
            (
                "table",
                "intervals",
                "Two kinds of bootstrap interval for the same scores.",
            ),
            (
                "table",
                "variance_parts",
                "Standard deviation over training seeds, beside the standard deviation over resampled test patients.",
            ),
            (
                "table",
                "temperatures",
                "Temperature of each network, fitted on the validation split. Above 1, the network was overconfident.",
            ),
            (
                "figure",
                "reliability",
                "Predicted probability and observed share, before and after temperature scaling. The diagonal is perfect calibration.",
            ),
            (
                "table",
                "calibration_display",
                "Calibration on the test split, before and after temperature scaling. Lower is better.",
            ),
            (
                "table",
                "operating_points",
                "Thresholds that were chosen on the validation split for a wanted specificity, and the scores that they give on the test split.",
            ),
            (
                "figure",
                "decision_curves",
                "Net benefit of referring by the network, compared with referring every patient or none. Higher is better.",
            ),
        ),
        columns={
            "paired_tests/value": ("difference", "Score of the network minus that of the other one."),
            "operating_points/value": ("on test", "The measure on the test split, at this threshold."),
        },
        order=20,
    ),
    Section(
        params.HeatmapAnalysis.notebook,
        "Heatmaps",
        "Where the heatmaps point. They are compared with four baselines that ignore the network, and tested for whether they depend on what the "
        "network has learnt.",
        (
            (
                "figure",
                "figure4",
                "As in the paper's figure 4: photograph, heatmap, overlay in the paper's colours, and a legible overlay with outlines of the lesions.",
            ),
            (
                "figure",
                "figure5",
                "As in the paper's figure 5: right, borderline and wrong predictions. A stated rule chose the eyes.",
            ),
            (
                "figure",
                "beyond_chance",
                "Score of the last layer's map minus that of four baselines that ignore the network. If the whole interval is to the right of the line, the map is better than that baseline.",
            ),
            (
                "table",
                "localisation_display",
                "One row per layer, region and score. The differences to the baselines are paired by eye, in percentage points with 95 % intervals. Dice and "
                "IoU need a cut of the map: Otsu's, half of the maximum, the best one on all other patients (validation), or the best one on the eye itself (oracle).",
            ),
            (
                "table",
                "lesion_coverage_display",
                "Share of a single lesion that lies in the hottest tenth of the field of view, by size of the lesion. 10 % is chance.",
            ),
            ("figure", "layers", "Maps of the same eyes at the candidate layers."),
            (
                "table",
                "heat_display",
                "Share of the heat in each region, beside the region's share of the field of view.",
            ),
            ("figure", "heat_shares", "Share of the heat in each region, with 95 % intervals."),
            (
                "table",
                "localisation_by_group_display",
                "All lesions together, for right and wrong predictions, and for each grade.",
            ),
            (
                "table",
                "vessel_shift_display",
                "A test of the paper's claim that in missed severe eyes the heat moves from lesions to vessels.",
            ),
            (
                "figure",
                "methods",
                "Methods and finer maps (green) on lesions, minus random maps on the same grid, on a subset of the test eyes.",
            ),
            ("table", "methods_gain_display", "Gain of each method over Grad-CAM on the same eyes."),
            (
                "table",
                "faithfulness_display",
                "Faithfulness: probability of the class while pixels are inserted or deleted in the map's order, minus that of a random order.",
            ),
            (
                "figure",
                "cascade",
                "Similarity of a map to its original while the network's weights are made random, layer by layer from the head down. It should fall.",
            ),
            (
                "table",
                "sanity_display",
                "Similarity of a map to that of a network with random weights, of other training seeds, and of the turned eye.",
            ),
        ),
        across=(
            (
                "localisation_display",
                "All lesions together, for every network and layer.",
                "region == 'lesion' and metric in ('heat', 'hit', 'aupr', 'dice_validation')",
            ),
            (
                "vessel_shift_display",
                "Map for grade 0 minus map for the true grade, in severe eyes.",
                "comparison == 'normal against truth'",
            ),
        ),
        columns={
            "layer": ("layer", "Layer of the network whose map it is, by its name in the network."),
            "size": ("size, disc diameters", "Diameter of the lesion."),
            "group": ("eyes of", "Group of test eyes."),
            "verdict": (
                "beyond the baselines?",
                "Above or below: the interval of the difference excludes 0.",
            ),
            "empty mask": (
                "eyes without the region",
                "Eyes that are left out, because the region is not in them.",
            ),
            "no heat": ("eyes without heat", "Eyes that are left out, because their map is 0."),
            "faithfulness_display/verdict": ("verdict", "Whether the interval of the difference excludes 0."),
            "sanity_display/verdict": ("verdict", "Whether the map depends on what was learnt."),
        },
        order=30,
    ),
    Section(
        params.PaperAudit.notebook,
        "The paper's arithmetic",
        "What the printed numbers imply. Nothing but these numbers is used.",
        (
            (
                "figure",
                "implied_prevalence",
                "The share of positives at which each row of Table 2 is consistent, with the range that rounding allows, beside the share at every cut.",
            ),
            (
                "table",
                "macro_reading",
                "Could the printed sensitivity be a mean over the grades? It cannot if the accuracy needed is above the greatest possible one.",
            ),
            (
                "table",
                "sampler",
                "What the printed sampler weights draw if the classes have the printed counts.",
            ),
            ("table", "network", "Number of parameters of the network as printed."),
            (
                "table",
                "ram_parameters",
                "Number of parameters of RAM (Wang & Yang 2017), counted from its layers, beside the printed millions.",
            ),
        ),
        columns={
            "most_accurate": (
                "greatest possible accuracy",
                "Of a classifier with the printed sensitivity as mean recall.",
            ),
            "if_plain": ("accuracy needed, five grades", "If the printed accuracy is that over five grades."),
            "if_one_vs_rest": (
                "accuracy needed, one against the rest",
                "If the printed accuracy is the mean of five accuracies, each grade against the rest.",
            ),
            "possible": ("possible?", "Whether the accuracy needed is not above the greatest possible one."),
            "weight": ("sampler weight", ""),
            "share of draws": ("share of draws", "Share of an epoch's draws, 0 to 1."),
            "times drawn": ("draws per image", "How often each image of the grade is drawn in an epoch."),
            "last_map": ("side of the last map, cells", ""),
            "convolutions": ("convolutions", "Number of layers."),
            "untied_biases": ("untied biases", "One per channel and position, as RAM has them."),
            "tied_biases": ("tied biases", "One per channel, for comparison."),
            "head": ("weights of the head", ""),
            "network/head": ("head", "Layers after the backbone."),
            "printed": ("printed, millions", "What the paper prints."),
            "agrees": ("agrees?", "Whether the total rounds to the printed number."),
        },
        order=60,
    ),
    Section(
        params.DataAudit.notebook,
        "Data",
        "Which photographs were read, which were left out and why, and how patients were divided into training, validation and test.",
        (
            ("figure", "examples_by_grade", "Training images drawn at random, by grade."),
            ("table", "class_counts", "Images by grade."),
            (
                "table",
                "quarantine_counts",
                "Files and labels that were left out, or used after a conversion.",
            ),
            ("table", "split", "Images by split and grade. Both eyes of a patient are in the same split."),
            ("figure", "measurements", "Sizes and quality of the photographs."),
            ("figure", "flagged", "The images with the most flags of the quality rule."),
            ("figure", "fellow_eyes", "Grade of one eye against the grade of the patient's other eye."),
            (
                "figure",
                "leak",
                "Share of the test images with another image of the same patient in training, for a split by image and for the split by patient that is used.",
            ),
        ),
        columns={f"split/{grade}": (f"grade {grade}", "") for grade in range(5)},
        order=70,
    ),
    Section(
        params.Oversampling.notebook,
        "Oversampling",
        "What the paper's sampler draws, and how oversampling changes the recall of each grade on the validation split.",
        (
            ("figure", "class_shares", "Share of each grade among the draws of an epoch, for each sampler."),
            (
                "figure",
                "augmentations",
                "The augmentations that the paper names. Their ranges are choices of this study.",
            ),
            (
                "figure",
                "recall_by_grade",
                "Recall by grade and sampler, after a short fine-tuning, on the validation split.",
            ),
            (
                "table",
                "leak_exposure",
                "Number of tested rows that have an exact copy, a near duplicate or the patient's other eye in training.",
            ),
            (
                "table",
                "leaks_display",
                "How much a leak raises scores: on a study's own rows and on new patients, beside networks without a leak on the same rows.",
            ),
        ),
        order=80,
    ),
    Section(
        params.FineTuning.notebook,
        "Fine-tuning",
        "For each network: its loss during training and its model card.",
        (
            ("figure", "loss", "Loss on the training batches, and after each epoch on the validation split."),
            ("table", "model_card", "What the network is, what it learnt from, and what it is for."),
        ),
        order=100,
    ),
)
