"""Chunks: sorted, no longer than their longest row, and encoded again with the same random numbers."""

import pytest
import torch
from torch import nn

from longclip_diffusers.training.gradcache import encode_chunks, encode_sorted, sorted_chunks

END = 9


def test_chunks_are_sorted_and_whole():
    chunks = sorted_chunks([3, 9, 4, 9, 1], 2)
    assert chunks == [[1, 3], [2, 0], [4]]


@pytest.mark.parametrize(
    ("multiple", "shapes"), [(1, [(2, 7), (2, 4), (1, 2)]), (4, [(2, 7), (2, 4), (1, 4)])], ids=["exact", "rounded"]
)
def test_features_come_back_in_order(multiple, shapes):
    rows, seen = [[1, END], [1, 5, 6, END], [1, 2, 3, 4, 5, 6, END], [1, 3, END], [1, 2, 2, 2, END]], []

    def encode(ids):
        seen.append(tuple(ids.shape))
        assert (ids[:, -1] == END).all() or ids.shape[1] == 7
        return torch.stack([ids.sum(1) - END * (ids == END).sum(1), (ids != END).sum(1)], dim=1).float()

    features = encode_sorted(encode, rows, size=2, replay=False, multiple=multiple, longest=7)
    assert features.tolist() == [[sum(row) - END, len(row) - 1] for row in rows]
    assert seen == shapes


def test_replay_draws_the_same_random_numbers():
    tower = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    chunks = torch.randn(10, 4, dtype=torch.float64).split(4)
    results = []
    for replay in (False, True):
        tower.zero_grad()
        torch.manual_seed(1)
        features = encode_chunks(tower, chunks, replay=replay)
        features.square().sum().backward()
        results.append([features.detach(), *(parameter.grad for parameter in tower.parameters())])
    for kept, replayed in zip(*results, strict=True):
        torch.testing.assert_close(replayed, kept, rtol=1e-13, atol=0)


def test_replay_keeps_what_is_read_and_no_activations():
    tower = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    chunks, kept = torch.randn(10, 4).split(4), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        encode_chunks(tower, chunks, replay=True)
    assert {tensor.data_ptr() for tensor in kept} <= {chunk.data_ptr() for chunk in chunks}
