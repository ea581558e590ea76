import pandas as pd

from smcore.config import paper_claims
from smcore.findings import training_findings


def test_training_findings_name_the_first_epoch_within_one_percent_of_the_lowest_loss():
    # the lowest is 2.00 in epoch 4; 2.02 in epoch 2 is 1 % above it, 2.03 in epoch 1 is not
    history = pd.DataFrame({"validation": [2.03, 2.02, 2.5, 2.0, 2.01]}, index=[1, 2, 3, 4, 5])
    (name, found), *others = training_findings(history).items()
    assert (name, found["found"], found["agrees"]) == ("loss-converged", "epoch 2", None)
    assert not others and name in paper_claims()


def test_training_findings_count_epoch_0_of_an_anchored_network():
    history = pd.DataFrame({"validation": [1.0, 1.5]}, index=[0, 1])
    assert training_findings(history)["loss-converged"]["found"] == "epoch 0"
