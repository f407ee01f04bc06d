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
        "The paper's Table 2 beside ours, for every positive cut, since the paper does not name its own.",
        (
            (
                "table",
                "table2_display",
                "Test split. Sensitivity, specificity and accuracy at each cut, with 95 % intervals; the paper's rows as printed.",
            ),
            (
                "figure",
                "table2_ge2",
                "At grade 2 or more, beside the paper's numbers (hollow), on the assumption that this is its cut.",
            ),
            ("table", "summary", "Agreement with the reference grades."),
            ("table", "recalls", "Share of eyes of each grade that are called that grade."),
            ("figure", "confusion_matrices", "Confusion matrices, test split."),
            ("figure", "roc_curves", "ROC curves for each cut."),
            ("table", "recipe_deviations", "Where each recipe is not the paper's; = marks agreement."),
            ("table", "paper_arithmetic", "Which prevalence the paper's rows imply."),
            ("figure", "loss_curves", "Loss while training: the paper's figures 1 to 3."),
            ("table", "seed_spread", "Spread over seeds."),
            (
                "table",
                "oddities_display",
                "What each oddity of the paper is worth: one thing changed at a time, differences paired by patient.",
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
        "Which differences stand a test, whether the probabilities can be believed, and what a clinic would gain by them.",
        (
            (
                "table",
                "paired_tests",
                "Each network minus DenseNet121, with p-values that take eyes as independent, that resample patients, and that are also adjusted for "
                "the number of networks.",
            ),
            ("table", "intervals", "Percentile and BCa intervals side by side."),
            ("table", "variance_parts", "Spread over training seeds beside spread over test patients."),
            ("table", "temperatures", "Fitted on validation; above 1, the network was too sure."),
            ("figure", "reliability", "What was said against what was seen, before and after."),
            ("table", "calibration_display", "Calibration on test, before and after."),
            ("table", "operating_points", "Thresholds chosen on validation, and what they give on test."),
            (
                "figure",
                "decision_curves",
                "Net benefit of referring by the network, against referring all or none.",
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
        "Where the maps point, whether that is more than four maps that know nothing would give, and whether the maps depend on what was "
        "learnt.",
        (
            (
                "figure",
                "figure4",
                "The paper's figure 4: image, heat, overlay as printed, and a legible overlay with lesion outlines.",
            ),
            (
                "figure",
                "figure5",
                "The paper's figure 5: right, borderline and wrong, chosen by a stated rule.",
            ),
            (
                "figure",
                "beyond_chance",
                "What the map of the last layer scores beyond four maps that know nothing: right of the line, with its interval, is beyond chance.",
            ),
            (
                "table",
                "localisation_display",
                "Each layer, lesion and score less that of each baseline, percentage points with 95 % intervals of the paired difference. Cuts of "
                "Dice and IoU: Otsu's, half of the maximum, the best on all other patients (validation), the best on the eye itself (oracle).",
            ),
            (
                "table",
                "lesion_coverage_display",
                "How much of a single lesion lies in the hottest tenth of the field of view (10 % is chance), by size in disc diameters.",
            ),
            ("figure", "layers", "The same eyes at the candidate layers."),
            (
                "table",
                "heat_display",
                "Share of heat by region, against the region's share of the field of view.",
            ),
            ("figure", "heat_shares", "Heat by region, with 95 % intervals."),
            (
                "table",
                "localisation_by_group_display",
                "All lesions together, by right and wrong answers, and by grade.",
            ),
            (
                "table",
                "vessel_shift_display",
                "The paper's claim as a test: does the heat of missed severe eyes move from lesions to vessels?",
            ),
            (
                "figure",
                "methods",
                "Methods and finer maps (green) on lesions, less random maps on the same grid, on the eyes that were checked.",
            ),
            ("table", "methods_gain_display", "The same eyes: gain over Grad-CAM."),
            (
                "table",
                "faithfulness_display",
                "Probability of the class as pixels come and go in the map's order, less that of a random order.",
            ),
            ("figure", "cascade", "How alike a map stays as the weights become random, from the head down."),
            (
                "table",
                "sanity_display",
                "Likeness with the map of a network that has learnt nothing, with other seeds, and of the turned eye.",
            ),
        ),
        across=(
            (
                "localisation_display",
                "All lesions together, every network and layer.",
                "region == 'lesion' and metric in ('heat', 'hit', 'aupr', 'dice_validation')",
            ),
            (
                "vessel_shift_display",
                "The evidence for grade 0 less that for the true grade, severe eyes.",
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
        "What the printed numbers imply, computed from nothing but them.",
        (
            (
                "figure",
                "implied_prevalence",
                "Share of positives at which each row of Table 2 agrees with itself, with the range that rounding leaves, against every cut.",
            ),
            (
                "table",
                "macro_reading",
                "Could its sensitivity be a mean over the grades? The accuracy needed is above what that mean allows where it is not possible.",
            ),
            ("table", "sampler", "What the printed sampler weights draw from the printed class counts."),
            ("table", "network", "The printed network, counted."),
            (
                "table",
                "ram_parameters",
                "Parameters of RAM (Wang & Yang 2017), counted from its layers, beside the millions it prints.",
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
        "What was read, what was left out and why, and how patients were divided.",
        (
            ("figure", "examples_by_grade", "Training images drawn at random, by grade."),
            ("table", "class_counts", "Images by grade."),
            (
                "table",
                "quarantine_counts",
                "Files and labels that were left out, or used after a conversion.",
            ),
            ("table", "split", "Images by split and grade; both eyes of a patient are on one side."),
            ("figure", "measurements", "Sizes and image quality."),
            ("figure", "flagged", "The images that the quality rule flags most."),
            ("figure", "fellow_eyes", "One eye's grade against the other's."),
            ("figure", "leak", "What splitting by image would have leaked."),
        ),
        columns={f"split/{grade}": (f"grade {grade}", "") for grade in range(5)},
        order=70,
    ),
    Section(
        params.Oversampling.notebook,
        "Oversampling",
        "What the paper's sampler draws, and what oversampling does to each grade, on the validation split.",
        (
            ("figure", "class_shares", "Shares of the grades among an epoch's draws."),
            (
                "figure",
                "augmentations",
                "The augmentations that the paper names; the ranges are this study's.",
            ),
            ("figure", "recall_by_grade", "Recall by grade and sampler, short fine-tunes, validation split."),
            (
                "table",
                "leak_exposure",
                "Rows tested that have a copy, a near duplicate or a fellow eye in training.",
            ),
            (
                "table",
                "leaks_display",
                "What a leak is worth: scores on a study's own rows and on new patients, beside honest networks on the same rows.",
            ),
        ),
        order=80,
    ),
    Section(
        params.FineTuning.notebook,
        "Fine-tuning",
        "Each network: loss, test scores, model card.",
        (
            ("figure", "loss", "Loss while training, and after each epoch on validation."),
            ("table", "model_card", "What the network is, what it learnt from, and what it is for."),
        ),
        order=100,
    ),
)
