"""The network's parts: shapes, identity at the start, Eq. 1 against its plain form."""

import math

import pytest
import torch

from spadit.model.backbone import DiTBlock
from spadit.model.condition import ConditionEmbedding, NoCondition
from spadit.model.embedding import LatentEmbedding, TimeEmbedding
from spadit.model.spadit import Network, NetworkSettings

SHAPE = NetworkSettings(n_spots=11, n_cells=7, n_condition_genes=9, width=16, depth=2, n_heads=4, n_reduced=5)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(3, 11, generator=generator), torch.tensor([0, 5, 9]), torch.randn(3, 7, generator=generator),
            torch.randn(9, 7, generator=generator))


def test_a_dit_block_is_the_identity_at_the_start():
    block = DiTBlock(16, 4)
    x, condition = torch.randn(3, 2, 16), torch.randn(3, 16)
    assert torch.equal(block(x, condition), x)


def test_the_network_starts_at_zero_and_learns_from_every_part(batch):
    torch.manual_seed(0)
    network = Network(SHAPE)
    target, fraction = network(*batch)
    assert target.shape == fraction.shape == (3, 11)
    assert not target.any() and not fraction.any()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(4):  # zeros at three depths open one after the other
        optimiser.zero_grad()
        target, fraction = network(*batch)
        ((target - 1) ** 2 + (fraction - 1) ** 2).mean().backward()
        optimiser.step()
    silent = [name for name, part in network.named_parameters() if part.grad is None or not part.grad.any()]
    assert not silent


def test_condition_is_equation_1():
    torch.manual_seed(0)
    psi = ConditionEmbedding(n_genes=9, n_cells=7, width=4, n_reduced=5)
    reference, whole = torch.randn(3, 7), torch.randn(9, 7)
    q, k, v = reference @ psi.query.weight.T, whole @ psi.key.weight.T, whole @ psi.value.weight.T
    reduced_k, reduced_v = psi.reduce_keys.weight @ k, psi.reduce_values.weight @ v
    expected = torch.softmax(q @ reduced_k.T / math.sqrt(4), dim=-1) @ reduced_v
    assert torch.allclose(psi(reference, whole), expected, atol=1e-6)


def test_attention_backends_agree():
    block = DiTBlock(16, 4)
    torch.nn.init.normal_(block.modulation[1].weight)
    x, condition = torch.randn(3, 2, 16), torch.randn(3, 16)
    backends = torch.nn.attention.SDPBackend
    with torch.nn.attention.sdpa_kernel(backends.MATH):
        plain = block(x, condition)
    with torch.nn.attention.sdpa_kernel(backends.FLASH_ATTENTION):
        flash = block(x, condition)
    assert torch.allclose(plain, flash, atol=1e-5)


def test_latent_embedding_concatenates_two_tokens_or_leaves_the_reference_out():
    x, reference = torch.randn(3, 11), torch.randn(3, 7)
    both, one = LatentEmbedding(11, 7, 8), LatentEmbedding(11, 7, 8, concatenate=False)
    assert both(x, reference).shape == (3, 2, 8) and one(x, reference).shape == (3, 1, 8)
    assert torch.equal(one(x, reference), one(x, reference + 1))


def test_no_condition_is_zero_and_time_is_not_constant():
    assert not NoCondition(8)(torch.randn(3, 7), torch.randn(9, 7)).any()
    embedded = TimeEmbedding(8)(torch.tensor([0, 1, 500]))
    assert embedded.shape == (3, 8) and not torch.allclose(embedded[0], embedded[2])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        DiTBlock(10, 4)
    with pytest.raises(ValueError, match="Unknown condition 'mlpp'"):
        Network(NetworkSettings(3, 3, 3, condition="mlpp"))
