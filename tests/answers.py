"""One rank of a distributed evaluation for tests: answer this rank's share of the rows; rank 0 writes what all of them said.

python tests/answers.py RUN DATASET OUT.npz
"""

import sys
from pathlib import Path

import numpy as np

from distributed.joining import join

run, dataset, out = map(Path, sys.argv[1:])
world = join()

from family.data.dataset import open_dataset  # noqa: E402  (the world binds this process to its cores first)
from family.data.images import Preprocessing  # noqa: E402
from family.training.runs import load_run  # noqa: E402
from family.training.trainer import Job, answer_rows, evaluate_rows  # noqa: E402

model, card = load_run(run)
rows = open_dataset(dataset).rows("train")
job = Job(run, model, rows, None, Preprocessing(card["resolution_px"]), None, world)
accuracy, *_ = evaluate_rows(job, rows)
shares = world.gather(list(answer_rows(job, rows)))
if world.is_first:
    labels = np.concatenate([labels for share in shares for labels, _ in share])
    probabilities = np.concatenate([probabilities for share in shares for _, probabilities in share])
    assert labels.tolist() == rows.labels.tolist(), "the shares together are not the rows in their order"
    np.savez(
        out, labels=labels, probabilities=probabilities, accuracy=accuracy, shares=[sum(len(part) for part, _ in share) for share in shares]
    )
world.leave()
