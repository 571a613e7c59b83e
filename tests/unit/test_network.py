"""The network's parts: shapes, identity at the start, Eq. 1 against its plain form, every backbone and every switch of Table 4."""

import math
import sys
import types

import pytest
import torch

from spadit.errors import SpaditError
from spadit.model import attention as attention_module
from spadit.model.attention import attention, available_backends
from spadit.model.backbone import BACKBONES, DiTBlock, TransformerBlock, build_backbone
from spadit.model.condition import CONDITIONS, ConditionEmbedding, NoCondition
from spadit.model.decoder import Decoder
from spadit.model.embedding import LatentEmbedding, TimeEmbedding
from spadit.model.initial import zero
from spadit.model.mamba import MambaBlock, SelectiveScan
from spadit.model.spadit import Network, NetworkSettings
from spadit.model.token import TokenNetwork, TokenSettings
from spadit.model.unet import UNet


def settings(**changes):
    return NetworkSettings(n_spots=11, n_cells=7, n_condition_genes=9, width=16, depth=2, n_heads=4, n_reduced=5, **changes)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    """Three genes of a slide of 11 spots and a reference of 9 genes and 7 cells."""
    return torch.randn(3, 11), torch.tensor([0, 5, 9]), torch.randn(3, 7), torch.randn(9, 7)


@pytest.fixture
def windows():
    """Four windows of 6 spots with 5 features each and 3 scalars of the gene."""
    return torch.randn(4, 6), torch.tensor([0, 5, 9, 9]), torch.randn(4, 6, 5), torch.randn(4, 3)


def shaken(network, by=0.1):
    """The network as if it had learned something: no parameter is zero any more."""
    with torch.no_grad():
        for part in network.parameters():
            part.add_(by * torch.randn_like(part))
    return network


def silent_parts(network, inputs):
    """Names of the parameters that no gradient has reached after a few steps (zeros open one after the other)."""
    parts = dict(network.named_parameters())
    for _ in range(4):
        target, fraction = network(*inputs)
        loss = ((target - 1) ** 2 + (fraction - 1) ** 2).mean()
        slopes = torch.autograd.grad(loss, list(parts.values()), allow_unused=True)
        with torch.no_grad():
            for part, slope in zip(parts.values(), slopes, strict=True):
                part -= 0.1 * (0 if slope is None else slope)
    return [name for name, slope in zip(parts, slopes, strict=True) if slope is None or not slope.any()]


@pytest.mark.parametrize(("kind", "sizes"), [(DiTBlock, (16, 4)), (TransformerBlock, (16, 4)), (MambaBlock, (16,))])
def test_a_block_is_the_identity_at_the_start(kind, sizes):
    block = kind(*sizes)
    x, condition = torch.randn(3, 2, 16), torch.randn(3, 16)
    assert torch.equal(block(x, condition), x)
    assert not torch.allclose(shaken(block)(x, condition), x, atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("n_tokens", [1, 2, 5, 32])
def test_a_backbone_is_the_identity_at_the_start_and_listens_to_the_condition_later(name, n_tokens):
    backbone = build_backbone(name, 16, 3, 4)
    x, condition = torch.randn(3, n_tokens, 16), torch.randn(3, 16)
    assert torch.equal(backbone(x, condition), x)
    shaken(backbone)
    assert backbone(x, condition).shape == x.shape
    assert not torch.allclose(backbone(x, condition), backbone(x, condition.flip(1)), atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_token_sees_every_other_through_a_backbone(name):
    backbone = shaken(build_backbone(name, 16, 2, 4), 0.3)
    x, condition = torch.randn(1, 5, 16, requires_grad=True), torch.randn(1, 16)
    for token in range(5):
        (slope,) = torch.autograd.grad(backbone(x, condition)[0, token].sum(), x)
        assert (slope[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("concatenate", [True, False])
def test_the_network_starts_at_zero_and_learns_from_every_part(batch, backbone, condition, concatenate):
    network = Network(settings(backbone=backbone, condition=condition, concatenate=concatenate))
    target, fraction = network(*batch)
    assert target.shape == fraction.shape == (3, 11)
    assert not target.any() and not fraction.any()
    # a single token has no earlier state that A could let decay
    assert [name for name in silent_parts(network, batch) if concatenate or not name.endswith("log_a")] == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_token_network_starts_at_zero_and_learns_from_every_part(windows, backbone):
    network = TokenNetwork(TokenSettings(5, 3, width=16, depth=2, n_heads=4, backbone=backbone))
    target, fraction = network(*windows)
    assert target.shape == fraction.shape == (4, 6)
    assert not target.any() and not fraction.any()
    assert not silent_parts(network, windows)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_genes_in_another_order_give_the_same_in_that_order(batch, backbone, condition):
    network = shaken(Network(settings(backbone=backbone, condition=condition)))
    x, t, reference, whole = batch
    order = torch.tensor([2, 0, 1])
    for one, other in zip(network(*batch), network(x[order], t[order], reference[order], whole), strict=True):
        assert torch.allclose(one[order], other, atol=1e-5)
    for one, other in zip(network(*batch), network(x[:1], t[:1], reference[:1], whole), strict=True):
        assert torch.allclose(one[:1], other, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_windows_in_another_order_or_of_another_length(windows, backbone):
    network = shaken(TokenNetwork(TokenSettings(5, 3, width=16, depth=2, n_heads=4, backbone=backbone)))
    order = torch.tensor([3, 1, 0, 2])
    for one, other in zip(network(*windows), network(*(part[order] for part in windows)), strict=True):
        assert torch.allclose(one[order], other, atol=1e-5)
    x, t, features, scalars = windows
    for n_spots in (1, 2, 5):
        assert network(x[:, :n_spots], t, features[:, :n_spots], scalars)[0].shape == (4, n_spots)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_gives_nearly_the_same(batch, backbone):
    network = shaken(Network(settings(backbone=backbone)))
    with torch.no_grad():
        plain = network(*batch)[0]
        with torch.autocast("cpu", torch.bfloat16):
            half = network(*batch)[0]
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), plain, atol=0.02 * float(plain.abs().max()))


@pytest.mark.parametrize("backbone", ["dit", "transformer"])
def test_spots_of_a_window_in_another_order(windows, backbone):
    network = shaken(TokenNetwork(TokenSettings(5, 3, width=16, depth=2, n_heads=4, backbone=backbone)))
    x, t, features, scalars = windows
    order = torch.randperm(6)
    assert torch.allclose(network(*windows)[0][:, order], network(x[:, order], t, features[:, order], scalars)[0], atol=1e-5)


def test_condition_is_equation_1():
    psi = ConditionEmbedding(n_genes=9, n_cells=7, width=4, n_reduced=5)
    reference, whole = torch.randn(3, 7), torch.randn(9, 7)
    q, k, v = reference @ psi.query.weight.T, whole @ psi.key.weight.T, whole @ psi.value.weight.T
    reduced_k, reduced_v = psi.reduce_keys.weight @ k, psi.reduce_values.weight @ v
    expected = torch.softmax(q @ reduced_k.T / math.sqrt(4), dim=-1) @ reduced_v
    assert torch.allclose(psi(reference, whole), expected, atol=1e-6)


def test_conditions_depend_on_what_they_should(batch):
    x, t, reference, whole = batch
    for condition, sees_whole in (("attention", True), ("mlp", False), ("none", False)):
        network = shaken(Network(settings(condition=condition)))
        assert torch.equal(network(x, t, reference, whole)[0], network(x, t, reference, whole.flip(1))[0]) != sees_whole
    alone = shaken(Network(settings(condition="none", concatenate=False)))
    assert torch.equal(alone(x, t, reference, whole)[0], alone(x, t, reference + 1, whole)[0])


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_attention_backends_agree(device, dtype, tolerance):
    q, k, v = (torch.randn(3, 4, n, 16, device=device, dtype=dtype) for n in (6, 5, 5))
    plain = attention(q, k, v, "math")
    assert plain.shape == q.shape and plain.dtype == dtype
    backends = [b for b in available_backends(device) if b != "flash-attn" or dtype == torch.bfloat16]
    for backend in ("auto", *backends):
        assert torch.allclose(attention(q, k, v, backend), plain, atol=tolerance)


def test_networks_with_any_attention_backend_agree(batch, windows):
    for network, inputs in ((Network(settings()), batch), (TokenNetwork(TokenSettings(5, 3, width=16)), windows)):
        shaken(network)
        found = []
        for backend in available_backends("cpu"):
            other = type(network)(type(network.settings)(**{**vars(network.settings), "attention_backend": backend}))
            other.load_state_dict(network.state_dict())
            found.append(other(*inputs)[0])
        assert all(torch.allclose(found[0], one, atol=1e-5) for one in found)


def test_flash_attention_that_cannot_be_used_is_explained(batch):
    q = torch.randn(1, 1, 2, 4)
    assert available_backends("cpu") == ("math", "sdpa")
    with pytest.raises(SpaditError, match="flash-attn can't be used here.*auto"):
        attention(q, q, q, "flash-attn")
    with pytest.raises(SpaditError, match="flash-attn can't be used here"):
        Network(settings(attention_backend="flash-attn"))(*batch)
    with pytest.raises(ValueError, match="Unknown attention backend 'flash'.*auto, math, sdpa, flash-attn"):
        attention(q, q, q, "flash")


def test_flash_attention_gets_its_own_layout(monkeypatch):
    """A stand-in for the package, as no test machine has to have it: (batch, tokens, heads, head width) in and out."""
    calls = []

    def flash_attn_func(q, k, v, deterministic=False):
        calls.append(q.shape)
        return attention(*(part.transpose(1, 2) for part in (q, k, v)), "math").transpose(1, 2)

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_func=flash_attn_func))
    attention_module._flash_attention.cache_clear()
    try:
        q, k, v = (torch.randn(3, 4, n, 16, dtype=torch.bfloat16) for n in (6, 5, 5))
        with pytest.raises(SpaditError, match="on the CPU, not on a GPU"):
            attention(q, k, v, "flash-attn")
        monkeypatch.setattr(attention_module, "_flash_obstacle", lambda device: "")
        assert available_backends("cuda") == ("math", "sdpa", "flash-attn")
        for backend in ("auto", "flash-attn"):
            assert torch.equal(attention(q, k, v, backend), attention(q, k, v, "math"))
        assert calls == [(3, 6, 4, 16)] * 2
        with pytest.raises(SpaditError, match="float32, not float16 or bfloat16"):
            attention(q.float(), k.float(), v.float(), "flash-attn")
        with pytest.raises(SpaditError, match="300 wide, more than 256"):
            attention(*(torch.zeros(1, 1, 2, 300, dtype=torch.float16),) * 3, "flash-attn")
        attention(q.float(), k.float(), v.float())
        assert len(calls) == 2
    finally:
        attention_module._flash_attention.cache_clear()


def test_selective_scan_by_hand():
    """One channel, one state: h_i = exp(Δ_i a) h_{i-1} + Δ_i b_i x_i, y_i = c_i h_i + d x_i, with Δ, b, c linear in x_i."""
    scan = SelectiveScan(1, n_states=1)
    with torch.no_grad():
        scan.select.weight.copy_(torch.tensor([[0.5], [2.0], [3.0]]))
        scan.step.weight.fill_(1), scan.step.bias.fill_(0.1), scan.log_a.fill_(math.log(0.7)), scan.d.fill_(0.25)
    state, expected = 0.0, []
    for x in (1.0, -2.0, 0.5):
        delta = math.log(1 + math.exp(0.5 * x + 0.1))
        state = math.exp(-0.7 * delta) * state + delta * (2 * x) * x
        expected.append(3 * x * state + 0.25 * x)
    assert scan(torch.tensor([[[1.0], [-2.0], [0.5]]])).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_selective_scan_is_causal_and_starts_with_small_steps():
    scan = SelectiveScan(8)
    start = torch.nn.functional.softplus(scan.step.bias)
    assert 0.0009 < start.min() and start.max() < 0.11
    x = torch.randn(2, 6, 8)
    later = x.clone()
    later[:, 4:] += 1
    assert torch.equal(scan(x)[:, :4], scan(later)[:, :4]) and not torch.allclose(scan(x)[:, 4:], scan(later)[:, 4:])


def test_a_mamba_block_has_no_direction():
    block = shaken(MambaBlock(16))
    x, condition = torch.randn(3, 5, 16), torch.randn(3, 16)
    assert torch.allclose(block(x.flip(1), condition).flip(1), block(x, condition), atol=1e-5)


def test_a_unet_without_convolutions_takes_means_on_the_way_down_and_details_from_the_skips():
    unet = UNet(4, depth=2)
    x, condition = torch.randn(1, 5, 4), torch.randn(1, 4)
    for block in (*unet.down, unet.middle, *unet.up):
        zero(block.convolution)
    identity, nothing = torch.eye(4), torch.zeros(4, 4)
    means = torch.cat([x[:, :4].mean(1, keepdim=True).repeat(1, 4, 1), x[:, 4:]], dim=1)  # the fifth token has no neighbour
    for from_below, from_skip, expected in ((identity, nothing, means), (nothing, identity, x)):
        with torch.no_grad():
            unet.last.weight.copy_(identity)
            for merge in unet.merge:
                merge.weight.copy_(torch.cat([from_below, from_skip], dim=1)), merge.bias.zero_()
        assert torch.allclose(unet(x, condition), x + expected, atol=1e-6)


def test_the_decoder_decodes_all_tokens_together_or_each_alone():
    together, alone = shaken(Decoder(16, 2, 11)), shaken(Decoder(16, 1, 1))
    x, condition = torch.randn(3, 2, 16), torch.randn(3, 16)
    assert together(x, condition)[0].shape == (3, 11) and alone(x, condition)[1].shape == (3, 2)
    assert torch.allclose(alone(x, condition)[0][:, 1:], alone(x[:, 1:], condition)[0], atol=1e-6)
    assert not any(part.any() for part in Decoder(16, 2, 11)(x, condition))


def test_latent_embedding_concatenates_two_tokens_or_leaves_the_reference_out():
    x, reference = torch.randn(3, 11), torch.randn(3, 7)
    both, one = LatentEmbedding(11, 7, 8), LatentEmbedding(11, 7, 8, concatenate=False)
    assert both(x, reference).shape == (3, 2, 8) and one(x, reference).shape == (3, 1, 8)
    assert torch.equal(one(x, reference), one(x, reference + 1))


def test_no_condition_is_zero_and_time_is_not_constant():
    assert not NoCondition(8)(torch.randn(3, 7), torch.randn(9, 7)).any()
    embedded = TimeEmbedding(8)(torch.tensor([0, 1, 500]))
    assert embedded.shape == (3, 8) and not torch.allclose(embedded[0], embedded[2])


def count(module):
    return sum(part.numel() for part in module.parameters())


def test_numbers_of_parameters():
    width = 32
    assert count(DiTBlock(width, 4)) == 14 * width**2 + 13 * width  # qkv 3, project 1, MLP 2 + 2, modulation 6
    assert count(TransformerBlock(width, 4)) == 8 * width**2 + 11 * width  # the same without modulation, with affine norms
    sizes = {name: count(build_backbone(name, width, 3, 4)) for name in BACKBONES}
    assert max(sizes.values()) < 3 * min(sizes.values()), sizes  # alike enough to be compared
    token = count(TokenNetwork(TokenSettings(n_features=28, n_scalars=14)))
    assert 50_000 < token < 150_000
    larger = Network(NetworkSettings(n_spots=1500, n_cells=1000, n_condition_genes=300))
    # φ and ψ over the reference's cells, φ over the spots, and a decoder from two tokens to twice the spots
    assert count(larger) == pytest.approx(96 * (4 * 1000 + 1500 + 4 * 1500), rel=0.5)


def test_wrong_words_and_shapes_are_named():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        DiTBlock(10, 4)
    with pytest.raises(ValueError, match="Unknown condition 'mlpp': one of attention, mlp, none"):
        Network(NetworkSettings(3, 3, 3, condition="mlpp"))
    with pytest.raises(ValueError, match="Unknown backbone 'u-net': one of dit, transformer, unet, mamba"):
        TokenNetwork(TokenSettings(3, 3, backbone="u-net"))
