"""Printing and checking results."""

from __future__ import annotations

import logging
import pprint
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main metrics in lines that are easy to paste into a spreadsheet.

    Metrics with a dash in their name (those of single classes) are left out.

    Args:
        results: ``{task: {metric: number}}``.
    """
    assert isinstance(results, Mapping) or not results, results
    for task, metrics in (results or {}).items():
        if not isinstance(metrics, Mapping):
            logger.info(f"copypaste: {task}={metrics}")
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info(f"copypaste: Task: {task}")
        logger.info("copypaste: " + ",".join(main))
        logger.info("copypaste: " + ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg: Any, results: Mapping[str, Mapping[str, float]]) -> bool:
    """Compare results with ``cfg.TEST.EXPECTED_RESULTS``.

    Args:
        cfg: a config whose ``TEST.EXPECTED_RESULTS`` lists ``(task, metric, value, tolerance)``.
        results: ``{task: {metric: number}}``.

    Returns:
        True.

    Raises:
        SystemExit: with status 1; a metric is missing, not finite or further from its value than
            the tolerance. The log says which.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    wrong = []
    for task, metric, value, tolerance in expected:
        actual = results[task].get(metric)
        if actual is None or not np.isfinite(actual) or abs(actual - value) > tolerance:
            wrong.append(f"{task}/{metric} is {actual}, expected {value} +- {tolerance}")
    if wrong:
        logger.error(f"Result verification failed! {'; '.join(wrong)}.")
        logger.error("Actual results: " + pprint.pformat(dict(results)))
        sys.exit(1)
    if expected:
        logger.info("Results verification passed.")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested results into a flat dict, with ``/`` between the names.

    >>> flatten_results_dict({"bbox": {"AP": 40.0}})
    {'bbox/AP': 40.0}
    """
    flat: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat.update((f"{name}/{k}", v) for k, v in flatten_results_dict(value).items())
        else:
            flat[name] = value
    return flat
